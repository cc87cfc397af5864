"""Running out of memory, and going on with less."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest
import torch

from maskmill.pipeline.machine.batches import Batches, is_out_of_memory


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("no"), False),
    ],
)
def test_running_out_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_a_batch_that_does_not_fit_is_halved_for_good_and_said(caplog: pytest.LogCaptureFixture) -> None:
    sizes: list[int] = []

    def work(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        if len(items) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [item * 10 for item in items]

    batches = Batches(16, "captioner")
    with caplog.at_level(logging.WARNING):
        assert batches.run(range(9), work) == [item * 10 for item in range(9)]
    assert sizes == [9, 4, 2, 2, 2, 2, 1]
    assert caplog.messages == [
        "captioner: out of memory with 9 together; going on with 4",
        "captioner: out of memory with 4 together; going on with 2",
    ]
    assert batches.run(range(4), work) == [0, 10, 20, 30] and sizes[-2:] == [2, 2]


def test_one_item_that_does_not_fit_is_an_error() -> None:
    def work(items: Sequence[int]) -> list[int]:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        Batches(2, "captioner").run(range(2), work)


def test_other_errors_pass_through_at_once() -> None:
    calls: list[int] = []

    def work(items: Sequence[int]) -> list[int]:
        calls.append(len(items))
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Batches(2, "captioner").run(range(2), work)
    assert calls == [2]
