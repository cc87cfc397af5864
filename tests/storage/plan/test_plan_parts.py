"""A plan in parts: images, keys and rejects of one plan, cut after whole shards, whoever writes beside."""

from __future__ import annotations

import io
import itertools
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from maskmill.storage.care.forget import _mark
from maskmill.storage.plan import make_plan as planning
from maskmill.storage.plan.cutting import PART_S, PartClock
from maskmill.storage.plan.make_plan import PlanSummary, make_plan, plan_parts
from maskmill.storage.plan.plan import Plan, load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store


@pytest.fixture
def photos(tmp_path: Path) -> str:
    """Ten pictures, two of them twice, an empty one, and a tar of seven in the middle."""
    top = tmp_path / "photos"
    top.mkdir()
    for number in range(10):
        (top / f"{'a' if number < 5 else 'z'}{number}.jpg").write_bytes(f"picture {number}".encode())
    (top / "b-again.jpg").write_bytes(b"picture 1")
    (top / "zz-again.jpg").write_bytes(b"picture 7")
    (top / "c.jpg").write_bytes(b"")
    (top / "film.mp4").write_bytes(b"no picture")
    with tarfile.open(top / "m.tar", "w") as tar:
        for number in range(7):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size = len(data := f"member {number}".encode())
            tar.addfile(info, io.BytesIO(data))
    return str(top)


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(tmp_path / "dataset")


def parts(
    store: ObjectStore, photos: str, due: Callable[[], bool] = lambda: True, *, limit: int | None = None
) -> list[PlanSummary]:
    return list(plan_parts(store, [photos], shard_size=3, limit=limit, num_threads=2, due=due))


def content(plan: Plan) -> tuple[object, ...]:
    images = [image for shard in range(plan.num_shards) for image in plan.images(shard)]
    tars = {(tar.source, tar.num_images) for tar in plan.iter_tars()}
    return images, plan.rejects, plan.rejects_by_reason, tars


def test_parts_hold_together_what_one_plan_would(store: ObjectStore, photos: str, tmp_path: Path) -> None:
    found = parts(store, photos)
    whole = open_store(tmp_path / "whole")
    one = make_plan(whole, [photos], shard_size=3, num_threads=2)
    plan = load_plans(store)
    assert content(plan) == content(load_plans(whole))
    assert [part.num_images for part in plan.parts] == [3, 3, 3, 3, 3, 2]
    assert [summary.num_shards for summary in found] == [1, 2, 3, 4, 5, 6]
    assert [summary.number for summary in found] == [1, 2, 3, 4, 5, 6]
    assert (found[-1].num_new_images, found[-1].num_rejects) == (17, one.num_rejects) == (17, 3)
    assert sum(part.skipped_by_ending.get(".mp4", 0) for part in plan.parts) == 1
    assert found[-1].skipped_by_ending == one.skipped_by_ending == {".mp4": 1}
    assert parts(store, photos)[-1].number is None, "nothing is new"


def test_a_planner_that_died_goes_on_where_it_was(
    store: ObjectStore, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = plan_parts(store, [photos], shard_size=3, num_threads=2, due=lambda: True)
    assert [next(begun).num_shards for _ in range(3)] == [1, 2, 3]  # inside the tar
    begun.close()
    assert len(list(store.list("plan/"))) == 3 + sum(len(part.tables) for part in load_plans(store).parts)

    hashed = []
    examine = planning.examine

    def counting(*args: object, **more: object) -> object:
        for one in examine(*args, **more):  # type: ignore[arg-type]
            hashed.append(isinstance(one, planning.HashedImage))
            yield one

    monkeypatch.setattr(planning, "examine", counting)
    parts(store, photos)
    assert sum(hashed) == 19 - 9 - 1, "what was planned, or a double, is not hashed again"
    whole = open_store(tmp_path / "whole")
    make_plan(whole, [photos], shard_size=3, num_threads=2)
    assert content(load_plans(store)) == content(load_plans(whole))


def test_two_planners_in_turn_make_one_plan(store: ObjectStore, photos: str, tmp_path: Path) -> None:
    first, second = (
        plan_parts(store, [photos], shard_size=size, num_threads=2, due=lambda: True) for size in (3, 2)
    )
    for turn in itertools.chain.from_iterable(itertools.zip_longest(first, second)):
        assert turn is None or turn.num_images <= 17
    plan = load_plans(store)
    images = [image for shard in range(plan.num_shards) for image in plan.images(shard)]
    whole = open_store(tmp_path / "whole")
    make_plan(whole, [photos], shard_size=3, num_threads=2)
    expected = load_plans(whole)
    assert [image.label for image in images] == [label for _, label in expected.iter_sources()]
    assert plan.rejects_by_reason == expected.rejects_by_reason
    tables = {table.written.name for part in plan.parts for table in part.tables}
    assert {info.name for info in store.list("plan/") if info.name.endswith("t")} == tables, (
        "nothing is left over"
    )


def test_forgetting_beside_a_planner_costs_it_nothing(
    store: ObjectStore, photos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = []
    listed = planning.list_inputs
    monkeypatch.setattr(
        planning, "list_inputs", lambda *args, **how: passes.append(1) or listed(*args, **how)
    )
    running = plan_parts(store, [photos], shard_size=3, num_threads=2, due=lambda: True)
    next(running)
    _mark(store, ["000000002"])
    _mark(store, ["000000003"])
    assert list(running)[-1].num_images == 17
    plan = load_plans(store)
    assert [part.num_images for part in plan.parts] == [3, 0, 0, 3, 3, 3, 3, 2] and len(passes) == 1
    assert plan.forgotten == {"000000002", "000000003"}


def test_a_limit_counts_over_parts(store: ObjectStore, photos: str) -> None:
    assert parts(store, photos, limit=7)[-1].num_images == 7
    assert [part.num_images for part in load_plans(store).parts] == [3, 3, 1]


def test_a_part_is_due_after_a_while_and_then_ever_later() -> None:
    now_s = 0.0
    due = PartClock(lambda: now_s)
    times = []
    while now_s < 4500:
        if due():
            times.append(now_s)
        now_s += 1.0
    assert times[:3] == [PART_S, 2 * PART_S, 3 * PART_S]
    assert 40 < len(times) < 60
    assert all(later - before <= PART_S + 0.12 * later for before, later in itertools.pairwise(times))


def test_a_plan_written_before_there_were_parts_is_gone_on_with(store: ObjectStore, photos: str) -> None:
    """Five pictures in shards of two and a duplicate, by the code of 27 November 2026, morning."""
    before = Path(__file__).parent / "written_before" / "plan"
    for file in before.iterdir():
        store.put(f"plan/{file.name}", file.read_bytes())
    old = load_plans(store)
    assert [image.source for image in old.images(0)] == [f"/tmp/before/photos/{n}.jpg" for n in range(2)]
    assert (old.images(0)[0].caption, old.rejects_by_reason) == ("a cat", {"duplicate": 1})

    # Its pictures 0 to 4 are these folder's too, by their bytes
    found = parts(store, photos)
    plan = load_plans(store)
    assert [part.num_images for part in plan.parts] == [5, 3, 3, 3, 3, 0]
    assert plan.images(0) == old.images(0) and plan.images(3)[0].key == "000000006"
    assert found[-1].rejects_by_reason == {"duplicate": 8, "empty_file": 1}
