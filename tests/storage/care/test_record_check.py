"""Every kind of object of a dataset, gone, cut or with one byte changed: `verify` names it, and a cure."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from maskmill.storage.care.forget import forget
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.model_versions import add_model, note_decision, promote
from maskmill.storage.dataset.tags import set_tag
from maskmill.storage.drivers.lease import announce
from maskmill.storage.json_text import load_object, sealed
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.promise import PROMISE
from tests.storage.datasets import CREATED, make_dataset

KINDS = {
    "plan": r"plan/000001\.json",
    "last plan": r"plan/000002\.json",
    "plan's table": r"plan/000001\.[0-9a-f]+\.parquet",
    "plan's rejects": r"plan/000001\..*rejects\.parquet",
    "generation": r"generations/000001/generation\.json",
    "last generation": r"generations/000002/generation\.json",
    "manifest": r"generations/000001/manifest.*",
    "last manifest": r"generations/000002/manifest.*",
    "images record": r"images/.*/commits/000000\.json",
    "masks record": r"masks/.*/commits/000001\.r1\.json",
    "card": r"models/segmenter/000001/card\.json",
    "last card": r"models/segmenter/000002/card\.json",
    "weights": r"models/segmenter/000001/weights.*",
    "gate": r"models/segmenter/000001/gate/000001\.json",
    "promotion": r"models/segmenter/promotions/000001\.json",
    "last promotion": r"models/segmenter/promotions/000002\.json",
    "tag": r"tags/best/000001\.json",
}


def gone(store: ObjectStore, name: str) -> None:
    store.delete(name)


def cut(store: ObjectStore, name: str) -> None:
    data = store.read(name)
    store.put(name, data[: len(data) // 2])


def flipped(store: ObjectStore, name: str) -> None:
    data = bytearray(store.read(name))
    data[random.Random(name).randrange(len(data))] ^= 1
    store.put(name, bytes(data))


def full_dataset(store: ObjectStore, tmp_path: Path) -> None:
    """One of each kind."""
    make_dataset(store, str(tmp_path / "photos"))
    for number in (1, 2):
        (tmp_path / "w.safetensors").write_bytes(b"weights %d" % number)
        made = add_model(store, tmp_path / "w.safetensors", model="nano", trained={}, created_utc=CREATED)
        note_decision(store, made.number, {"why": "better"})
        promote(store, made.number, why="better", created_utc=CREATED)
    set_tag(store, "best", 1, created_utc=CREATED)
    forget(store, ["7"], created_utc=CREATED)
    (tmp_path / "photos" / "new.jpg").write_bytes(b"another one")


@pytest.mark.parametrize("spoil", [gone, cut, flipped])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_spoilt_is_named_with_a_cure(
    local_store: ObjectStore, tmp_path: Path, kind: str, spoil: Callable[[ObjectStore, str], None]
) -> None:
    full_dataset(local_store, tmp_path)
    before = verify(local_store, deep=True)
    assert before.ok, before.problems
    name = next(info.name for info in local_store.list() if re.fullmatch(KINDS[kind], info.name))
    spoil(local_store, name)
    report = verify(local_store)
    assert not report.ok
    told = [problem for problem in report.problems if name in problem]
    assert told, report.problems
    if not name.startswith(("images", "masks")):  # what is damaged of a shard, --repair makes again
        assert any("put it back" in problem for problem in told), told


@pytest.mark.parametrize("byte", range(0, 400, 7))
def test_no_byte_of_a_sealed_record_changes_unseen(byte: int) -> None:
    data = bytearray(sealed({"a": 1, "b": ["x" * 40, "y" * 40], "c": {"d": "z" * 40, "e": None}, "n": 2.5}))
    assert load_object(bytes(data)) == {
        "a": 1, "b": ["x" * 40, "y" * 40], "c": {"d": "z" * 40, "e": None}, "n": 2.5
    }  # fmt: skip
    place = byte % len(data)
    data[place] ^= 1 << (byte % 7)
    with pytest.raises(ValueError, match=r"."):
        load_object(bytes(data))


def test_a_driver_at_work_is_no_loss(local_store: ObjectStore, tmp_path: Path) -> None:
    make_dataset(local_store, str(tmp_path / "photos"))
    local_store.put("generations/000002/manifest.abc.parquet", b"under way")
    with announce(local_store, "generate"):
        assert verify(local_store).ok
    assert [one for one in verify(local_store).problems if "generations/000002/generation.json" in one]


def test_a_dataset_without_seals_is_read(local_store: ObjectStore, tmp_path: Path) -> None:
    """As those are that were written before."""
    import json

    full_dataset(local_store, tmp_path)
    for info in list(local_store.list()):
        if info.name.endswith(".json") and not info.name.startswith(("locks/", "drivers/")):
            fields = load_object(local_store.read(info.name))
            fields.pop("seen", None)
            if "/commits/" not in info.name:  # generations name their bytes
                local_store.put(info.name, (json.dumps(fields, sort_keys=True, indent=1) + "\n").encode())
    report = verify(local_store, deep=True)
    assert report.ok, report.problems
    assert make_plan(local_store, [str(tmp_path / "photos")], shard_size=4).num_new_images == 1
    assert len(load_plans(local_store).parts) == 3
    assert local_store.stat(PROMISE).size_bytes
