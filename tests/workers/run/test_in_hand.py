"""What a worker had in hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.storage.errors import StoreUnavailable
from maskmill.storage.stores.local import LocalStore
from maskmill.workers.run.in_hand import Announcement, announce, last_announced, withdraw
from maskmill.workers.run.spec import MASKS, ShardTask

TASK = ShardTask(shard=3, attempt="a" * 16)


def test_the_last_word_counts_until_it_is_withdrawn(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    assert last_announced(store, 3, TASK.attempt) is None
    for key in ("000000001", "000000002"):
        announce(store, TASK, Announcement(MASKS, key))
    assert last_announced(store, 3, TASK.attempt) == Announcement(MASKS, "000000002")
    assert last_announced(store, 3, "b" * 16) is None
    withdraw(store, TASK)
    assert last_announced(store, 3, TASK.attempt) is None


def test_a_store_that_does_not_answer_blames_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(str(tmp_path))
    announce(store, TASK, Announcement(MASKS, "000000001"))

    def unavailable(self: LocalStore, name: str, start: int = 0, size: int | None = None) -> bytes:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(LocalStore, "read", unavailable)
    assert last_announced(store, 3, TASK.attempt) is None
