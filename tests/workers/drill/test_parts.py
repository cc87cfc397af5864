"""The drill's parts, one by one: orders, schedule, pictures, the undisturbed job, the comparison."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.generations import latest
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.drill import schedule as kinds
from maskmill.workers.drill.damage import damage_objects
from maskmill.workers.drill.inputs import write_part
from maskmill.workers.drill.orders import Order, Orders
from maskmill.workers.drill.same import compare, work_undisturbed
from maskmill.workers.drill.schedule import make_schedule
from maskmill.workers.shard.turn import CRASHED


def test_an_order_is_taken_once_however_many_look(tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    assert orders.take({"a", "b"}) is None
    for number in range(20):
        orders.give(Order(number, "ab"[number % 2]))
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: orders.take({"a"}), range(40)))
    assert Counter(order.kind for order in taken if order) == {"a": 10}
    assert orders.taken() == {"a": 10} and orders.num_open() == 10
    assert {order.number for order in orders.withdraw()} == set(range(1, 20, 2))
    assert orders.take({"b"}) is None and orders.taken() == {"a": 10}


@pytest.mark.parametrize("s3", [False, True])
@pytest.mark.parametrize("num_faults", [20, 60, 350])
def test_a_schedule_has_every_kind_and_the_number_asked_for(s3: bool, num_faults: int) -> None:
    schedule = make_schedule(7, num_faults, s3=s3)
    counts = Counter(kind for part in schedule.rounds for kind in part.faults)
    counts[kinds.POISON_IMAGE] = sum(part.num_poison for part in schedule.rounds)
    counts[kinds.DAMAGED_INPUT] = sum(part.num_damaged for part in schedule.rounds)
    counts[kinds.DAMAGED_OBJECT] = schedule.num_damaged_objects
    assert sum(counts.values()) == num_faults and min(counts.values()) >= 1
    assert set(counts) > kinds.KILLS
    assert schedule == make_schedule(7, num_faults, s3=s3)
    assert schedule != make_schedule(8, num_faults, s3=s3)


def test_three_full_drills_kill_as_often_as_they_should() -> None:
    for s3 in (False, True):
        counts = Counter(kind for part in make_schedule(0, 350, s3=s3).rounds for kind in part.faults)
        assert counts[kinds.WORKER_KILL] >= 50
        assert counts[kinds.NODE_KILL] >= 7 and counts[kinds.DRIVER_KILL] >= 7


def test_too_few_faults_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        make_schedule(0, 3, s3=False)


@pytest.fixture
def parts(tmp_path: Path) -> list[str]:
    for i in range(2):
        folder = tmp_path / "inputs" / str(i)
        write_part(folder, seed=i, num_images=14, num_poison=1, num_damaged=5)
    return [str(tmp_path / "inputs" / str(i)) for i in range(2)]


def test_the_undisturbed_job_is_sound_and_equal_to_itself(parts: list[str], tmp_path: Path) -> None:
    stores = [open_store(tmp_path / name) for name in ("one", "two")]
    for store in stores:
        work_undisturbed(store.root, parts, 4)
    assert verify(stores[0], deep=True).ok
    found = compare(*stores)
    assert (found.lost, found.duplicated, found.different, found.problems) == (0, 0, 0, ())
    plan = load_plans(stores[0])
    assert len(plan.parts) == 2 and plan.num_images >= 28
    assert {"empty_file", "duplicate", "tar_damaged"} <= set(plan.rejects_by_reason)
    generation = latest(stores[0])
    assert generation is not None
    from maskmill.storage.dataset.join import read_record

    rejects = Counter(
        reject.reason for row in generation.rows() for reject in read_record(stores[0], row).rejects
    )
    assert rejects[CRASHED] == 2 and rejects["not_an_image"] >= 2


def test_a_shard_that_is_missing_is_lost_and_a_changed_one_is_different(
    parts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = (open_store(tmp_path / name) for name in ("whole", "broken"))
    work_undisturbed(whole.root, parts, 4)
    work_undisturbed(broken.root, parts[:1], 4)
    found = compare(broken, whole)
    assert found.lost == load_plans(whole).num_images - load_plans(broken).num_images
    assert found.different > 0, "the second part's rejects are missing"
    assert any("is lost" in problem for problem in found.problems)
    found = compare(whole, broken)
    assert found.lost == 0 and found.different > 0 and "should not be there" in found.problems[0]


def test_damage_at_rest_is_named_by_verify(parts: list[str], tmp_path: Path) -> None:
    import random

    store = open_store(tmp_path / "data")
    work_undisturbed(store.root, parts, 4)
    hurt = damage_objects(store, 5, random.Random(0))
    assert len({one.name for one in hurt}) == 5
    assert len({one.how.split(" at ")[0] for one in hurt}) == 3
    named = "\n".join(verify(store, deep=True).problems)
    assert all(one.name in named for one in hurt)
