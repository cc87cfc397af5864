"""Single samples of a shard's tar: read alone, in any order, and the same as the shard's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.storage.browse import members
from maskmill.storage.browse.members import Members
from maskmill.storage.dataset.generations import Generation
from maskmill.storage.dataset.images import resolved_samples
from maskmill.storage.errors import DamagedObject
from maskmill.storage.shards.shards import read_shard
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import make_dataset


@pytest.fixture(params=[False, True], ids=["copied", "by reference"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ObjectStore, Generation]:
    store = open_store(tmp_path / "data")
    return store, make_dataset(store, str(tmp_path / "photos"), by_reference=request.param)


def test_each_sample_alone_is_what_the_shard_has(made: tuple[ObjectStore, Generation]) -> None:
    store, generation = made
    reader = Members(store)
    for row in generation.rows():
        whole = resolved_samples if row.column == "images" else None
        found = list(whole(store, row.data, row.shard) if whole else read_shard(store, row.data))
        assert found
        for sample in (*reversed(found), *found):
            alone = reader.sample(row, sample.key)
            assert alone is not None and (alone.key, dict(alone.files)) == (sample.key, dict(sample.files))
        assert reader.sample(row, "000000999") is None


def test_headers_are_read_as_far_as_needed_and_once(
    made: tuple[ObjectStore, Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, generation = made
    row = next(row for row in generation.rows() if row.column == "masks")
    seen: list[str] = []
    scan = members.scan_tar

    def watched(stream: object, size_bytes: int) -> object:
        for member in scan(stream, size_bytes):  # type: ignore[arg-type]
            seen.append(getattr(member, "name", "damage"))
            yield member

    monkeypatch.setattr(members, "scan_tar", watched)
    reader = Members(store)
    reader.sample(row, "000000001")
    assert seen == ["000000001.json", "000000003.json"]  # the second one's masks were rejected
    for key in ("000000001", "000000004", "000000003"):
        assert reader.sample(row, key) is not None
    assert seen[:3] == ["000000001.json", "000000003.json", "000000004.json"]
    assert len(seen) == len(set(seen))


def test_a_tar_of_another_size_or_cut_is_damage(made: tuple[ObjectStore, Generation]) -> None:
    store, generation = made
    row = next(row for row in generation.rows() if row.column == "masks")
    whole = store.read(row.data.name)
    store.put(row.data.name, whole[:-512])
    with pytest.raises(DamagedObject, match="not of the size"):
        Members(store).sample(row, "000000001")
    store.put(row.data.name, whole[:512] + b"x" * (len(whole) - 512))
    with pytest.raises(DamagedObject):
        Members(store).sample(row, "000000004")
