"""The one place where a bad sample is caught: by listed type, with its reason; all else ends the turn."""

from __future__ import annotations

import pytest
import torch

from maskmill.storage.dataset.records import Reject
from maskmill.storage.errors import DamagedObject, InputError, ObjectNotFound, SourceChanged
from maskmill.workers.foreign.images.codec import DecodeError
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.shard.rejects import CRASHED, check_sources, or_reject

TASK = ShardTask(shard=3, attempt="a" * 16, skip_keys={"5": "masks"})


def failing(error: BaseException) -> Reject | None:
    def work() -> None:
        raise error

    return or_reject(TASK, "masks", "1", work)


@pytest.mark.parametrize(
    "error, reason, detail",
    [
        (DecodeError("too_small", "2x2 px"), "too_small", "2x2 px"),
        (ObjectNotFound("a.jpg: gone"), "source_missing", "a.jpg: gone"),
        (SourceChanged("a.jpg: other bytes"), "source_changed", "a.jpg: other bytes"),
        (MemoryError("no room\nfor it"), "out_of_memory", "no room"),
        (MemoryError(), "out_of_memory", "no memory left"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "out_of_memory", "CUDA out of memory"),
    ],
)
def test_a_bad_sample_gets_its_reason(error: BaseException, reason: str, detail: str) -> None:
    found = failing(error)
    assert found is not None and (found.key, found.reason) == ("1", reason)
    assert found.detail.startswith(detail)


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("x"), DamagedObject("masks/0.tar: cut")])
def test_anything_else_passes_and_names_the_image(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        failing(error)
    assert caught.value.__notes__ == ["while making masks of image 1 in shard 3"]


def test_what_kills_workers_is_skipped_in_its_column_alone() -> None:
    skipped = or_reject(TASK, "masks", "5", lambda: "made")
    assert isinstance(skipped, Reject) and skipped.reason == CRASHED
    assert or_reject(TASK, "captions", "5", lambda: "made") == "made"


def test_a_shard_that_lost_every_source_is_no_empty_shard() -> None:
    gone = [Reject("1", "source_missing", "a.jpg: gone"), Reject("2", "source_changed", "b.jpg")]
    with pytest.raises(InputError, match=r"all 2 images of shard 3 are gone .*a\.jpg: gone"):
        check_sources(TASK, gone, 2)
    check_sources(TASK, gone, 3)
    check_sources(TASK, [gone[0], Reject("2", "too_small", "")], 2)
    check_sources(TASK, gone[:1], 1)
