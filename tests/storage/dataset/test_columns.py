from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmill.storage.dataset.columns import ColumnVersion, Repairs, list_columns, list_versions
from maskmill.storage.dataset.records import (
    CommitRecord,
    Reject,
    fingerprint,
    new_attempt,
    parse_record,
    record_bytes,
)
from maskmill.storage.drivers.shard_claims import ShardClaims
from maskmill.storage.errors import DamagedObject, DatasetError, ObjectNotFound
from maskmill.storage.shards.shards import Sample, WrittenObject, write_shard
from maskmill.storage.stores.base import ObjectStore

DIGITS = "5f0c9a1e77b2d310"


@pytest.fixture
def version(store: ObjectStore) -> ColumnVersion:
    return ColumnVersion(store, "masks", DIGITS)


def attempt(version: ColumnVersion, shard: int = 0, num_samples: int = 2) -> CommitRecord:
    """A shard that is written and not committed."""
    name = new_attempt()
    samples = [Sample(f"{number:09d}", {"json": name.encode()}) for number in range(num_samples)]
    return CommitRecord(
        column=version.column,
        fingerprint=version.fingerprint,
        shard=shard,
        attempt=name,
        data=write_shard(version.store, version.data_name(shard, name), samples),
        num_read=num_samples + 1,
        num_written=num_samples,
        rejects=(Reject("000000009", "too_small", "8 x 8 px"),),
        inputs={"images": "0" * 64},
        models={"segmenter": "nano"},
        seconds_by_step={"encode": 0.1 + 0.2},
        created_utc="2025-01-01T00:00:00+00:00",
    )


def test_a_record_makes_a_shard_exist(version: ColumnVersion) -> None:
    assert version.committed() == set()
    assert version.record(3) is None
    record = attempt(version, shard=3)
    assert version.record(3) is None, "data alone is nothing"
    assert version.commit(record) == record
    assert version.committed() == {3}
    assert version.record(3) == record
    assert list(version.records()) == [record]
    assert [sample.key for sample in version.read(record)] == ["000000000", "000000001"]


def test_the_second_attempt_gets_the_first_ones_record(version: ColumnVersion) -> None:
    first, second = attempt(version), attempt(version)
    version.commit(first)
    assert version.commit(second) == first
    left = [info.name for info in version.store.list()]
    assert left == [version.record_name(0), first.data.name], "the loser's tar is removed"


def test_committing_twice_is_committing(version: ColumnVersion) -> None:
    record = attempt(version)
    version.commit(record)
    assert version.commit(record) == record
    assert list(version.read(record))


def test_nothing_is_committed_without_its_data(version: ColumnVersion) -> None:
    record = attempt(version)
    version.store.delete(record.data.name)
    with pytest.raises(ObjectNotFound):
        version.commit(record)
    cut = attempt(version)
    version.store.put(cut.data.name, b"cut")
    with pytest.raises(DamagedObject):
        version.commit(cut)
    assert version.committed() == set()


def test_a_record_goes_to_its_own_version(version: ColumnVersion) -> None:
    with pytest.raises(DatasetError, match="cannot be committed"):
        replace(version, fingerprint="0" * 16).commit(attempt(version))


def test_a_record_accounts_for_every_key(version: ColumnVersion) -> None:
    record = attempt(version)
    with pytest.raises(AssertionError, match="written or rejected"):
        replace(record, num_read=5)
    with pytest.raises(AssertionError, match="rejected once"):
        replace(record, rejects=record.rejects * 2, num_read=4)
    with pytest.raises(AssertionError, match="tar holds"):
        replace(record, num_written=1, num_read=2)


def test_records_round_trip_and_their_sha256_is_of_the_stored_bytes(version: ColumnVersion) -> None:
    record = attempt(version)
    record = replace(
        record, index=WrittenObject("i", 1, "a", 2), rejects=(Reject("k", "r", "\u00e9\n\U0001f600"),)
    )
    again = parse_record(record_bytes(record))
    assert again == record
    assert again.sha256 == record.sha256


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-20],
        lambda data: b"",
        lambda data: b"[]",
        lambda data: data.replace(b'"num_written": 2', b'"num_written": 3'),
        lambda data: data.replace(b'"format_version": 1', b'"format_version": 2'),
        lambda data: data.replace(b'"attempt"', b'"attemp"'),
        lambda data: data.replace(b'"shard": 0', b'"shard": 1'),
    ],
)
def test_a_damaged_record_is_named(version: ColumnVersion, spoil: object) -> None:
    assert callable(spoil)
    record = attempt(version)
    version.commit(record)
    version.store.put(version.record_name(0), spoil(record_bytes(record)))
    with pytest.raises(DamagedObject, match=r"commits/000000\.json"):
        version.record(0)


def test_a_repair_supersedes_the_first_record(version: ColumnVersion) -> None:
    first = version.commit(attempt(version))
    repaired = replace(attempt(version), repair=1)
    assert version.next_repair(0) == 1
    assert version.commit(repaired) == repaired
    assert version.record(0) == repaired
    assert version.history(0) == [first, repaired]
    assert list(version.records()) == [repaired]
    assert version.committed() == {0}
    assert version.next_repair(0) == 2


def test_a_repair_that_cannot_be_read_leaves_the_one_before_in_force(version: ColumnVersion) -> None:
    first = version.commit(attempt(version))
    version.store.put(version.record_name(0, 1), b"{}")
    assert version.record(0) == first
    assert list(version.records()) == [first]
    version.store.put(version.record_name(0), b"{}")
    with pytest.raises(DamagedObject, match=r"commits/000000\.r1\.json"):
        list(version.records())
    third = version.commit(replace(attempt(version), repair=version.next_repair(0)))
    assert third.repair == 2
    assert version.record(0) == third


def test_a_lost_first_record_does_not_hide_its_repair(version: ColumnVersion) -> None:
    version.commit(attempt(version))
    repaired = version.commit(replace(attempt(version), repair=1))
    version.store.delete(version.record_name(0))
    assert version.record(0) == repaired
    assert list(version.records()) == [repaired]
    assert (version.next_repair(0), version.next_repair(1)) == (2, 0)


def test_many_records_come_in_order(version: ColumnVersion) -> None:
    made = [version.commit(attempt(version, shard)) for shard in range(70)]
    assert list(version.records()) == made
    assert [record.sha256 for record in version.records()] == [record.sha256 for record in made]


def test_other_files_among_the_records_are_no_records(version: ColumnVersion) -> None:
    version.store.put_if_absent(f"{version.folder}/commits/README.txt", b"")
    version.store.put_if_absent(f"{version.folder}/commits/7.json", b"")
    assert version.committed() == set()


def test_shards_beyond_a_million_are_found(version: ColumnVersion) -> None:
    for shard in (0, 999_999, 1_000_000):
        version.store.put_if_absent(version.record_name(shard), b"")
    assert version.committed() == {0, 999_999, 1_000_000}


def test_versions_are_listed(version: ColumnVersion) -> None:
    version.commit(attempt(version))
    assert list_versions(version.store, "masks") == [version]
    assert list_versions(version.store, "images") == []
    version.store.put("plan/000001.json", b"")
    version.store.put("models/segmenter/000001/card.json", b"")
    assert list_columns(version.store) == ["masks"]


def test_claims_and_names_of_sixteen_digits_are_no_column(store: ObjectStore) -> None:
    ShardClaims(store, {"masks": "1" * 16}, "a").take(7)
    for folder in ("tags", "sets"):
        store.put(f"{folder}/0123456789abcdef/000001.json", b"{}")
    assert list_columns(store) == []


def test_a_fingerprint_changes_with_what_changes_output() -> None:
    base = {"settings": {"a": 0.7, "b": True}, "weights": "w", "revision": 1, "inputs": {"images": "x"}}

    def digits(**changes: object) -> str:
        arguments = {**base, **changes}
        return fingerprint(
            arguments["settings"],  # type: ignore[arg-type]
            weights=arguments["weights"],  # type: ignore[arg-type]
            revision=arguments["revision"],  # type: ignore[arg-type]
            inputs=arguments["inputs"],  # type: ignore[arg-type]
        )

    assert digits() == digits(settings={"b": True, "a": 0.7})
    assert len(digits()) == 16
    assert int(digits(), 16) >= 0
    changed = [
        {"settings": {"a": 0.71, "b": True}},
        {"settings": {"a": 0.7, "b": 1}},
        {"settings": {"a": 0.7, "b": True, "c": None}},
        {"weights": None},
        {"revision": 2},
        {"inputs": {"images": "y"}},
    ]
    assert len({digits(), *(digits(**change) for change in changed)}) == 1 + len(changed)
    assert digits(settings={"a": 1.0}) == digits(settings={"a": 1}), "TOML and Python write it differently"


def test_a_fingerprint_stays_what_it_is() -> None:
    settings = {"points_per_side": 32, "stability": 0.95, "max_coverage": None}
    found = fingerprint(settings, weights="ab" * 32, revision=1, inputs={"images": DIGITS})
    assert found == fingerprint(
        json.loads(json.dumps(settings)), weights="ab" * 32, revision=1, inputs={"images": DIGITS}
    )
    assert found == "d216725528483676"


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 9000) | st.integers(10**9, 10**9 + 3), st.integers(0, 300) | st.none()),
        max_size=40,
    )
)
def test_repairs_are_what_a_dict_would_be(changes: list[tuple[int, int | None]]) -> None:
    """None takes a shard away."""
    found, wanted = Repairs(), dict[int, int]()
    for shard, number in changes:
        if number is None:
            assert found.pop(shard, None) == wanted.pop(shard, None)
        else:
            found[shard] = wanted[shard] = number
        assert (shard in found, len(found)) == (shard in wanted, len(wanted))
    copy = Repairs(found)
    assert dict(found) == dict(copy) == wanted and list(found) == sorted(wanted)
    for shard in wanted:
        del copy[shard]
    assert not copy and dict(found) == wanted, "a copy is another one"
    with pytest.raises(KeyError):
        del copy[1]
