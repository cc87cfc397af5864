"""Claims on shards: taken once, taken over from the dead, released for others, and never in the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskmill.storage.drivers.lease import announce, own_id
from maskmill.storage.drivers.shard_claims import FOLDER, ShardClaims
from maskmill.storage.errors import StoreUnavailable
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.local import LocalStore
from maskmill.storage.stores.open import open_store

RUN = {"images": "0" * 16, "masks": "1" * 16}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path)


def test_a_shard_is_taken_by_one_driver_of_a_run(store: ObjectStore) -> None:
    mine, theirs = ShardClaims(store, RUN, "a"), ShardClaims(store, RUN, "b")
    assert mine.take(7) and not theirs.take(7)
    assert mine.take(7), "the same driver's pool, begun again"
    assert theirs.take(8)
    assert ShardClaims(store, {**RUN, "masks": "2" * 16}, "c").take(7), "other masks of it are other work"


def test_a_dead_drivers_shard_is_taken_over_once(store: ObjectStore) -> None:
    with announce(store, "generate") as lease:
        assert own_id(store) == lease.driver_id
        ShardClaims(store, RUN, lease.driver_id).take(7)
        mine, theirs = ShardClaims(store, RUN, "b"), ShardClaims(store, RUN, "c")
        living = mine.living()
        holder = mine.take_over(7, living)
        assert holder is not None and holder.driver_id == lease.driver_id
    assert own_id(store) is None and mine.living() == {}
    assert mine.take_over(7, {}) is None
    assert mine.take_over(7, {}) is None, "it is ours already"
    told: Any = {"b": holder}
    assert theirs.take_over(7, told) is holder, "who took it over lives"
    assert theirs.take_over(7, {}) is None
    assert theirs.take_over(9, told) is None, "nobody had it"


def test_a_shard_that_was_given_up_is_free_again(store: ObjectStore) -> None:
    mine, theirs = ShardClaims(store, RUN, "a"), ShardClaims(store, RUN, "b")
    assert mine.take(7)
    mine.release(7)
    assert theirs.take(7)


def test_a_claim_that_cannot_be_read_or_written_holds_nobody_up(
    store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, theirs = ShardClaims(store, RUN, "a"), ShardClaims(store, RUN, "b")
    mine.take(7)
    (info,) = store.list(f"{FOLDER}/")
    store.put(info.name, b"[]")
    assert theirs.take_over(7, {"a": None}) is None  # type: ignore[dict-item]

    def fails(*args: object) -> bool:
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(LocalStore, "put_if_absent", fails)
    monkeypatch.setattr(LocalStore, "list", fails)
    assert mine.take(8)
    mine.release(8)
