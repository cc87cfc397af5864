"""Does a forgotten image stay away, whoever works on the dataset meanwhile? Schedules of the real code.

A driver takes images in, makes masks of them and publishes, as a worker and its driver do, while another one
forgets an image. Each seed is another order of their calls to the store; in some the driver is suspended, for
longer than its lease lasts, or killed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from maskmill.storage.care.forget import forget, plan_forget
from maskmill.storage.care.rewrite import settle_forgotten
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset import columns, generations
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.generations import latest, publish
from maskmill.storage.dataset.join import join
from maskmill.storage.dataset.records import CommitRecord
from maskmill.storage.drivers.lease import announce
from maskmill.storage.drivers.one_writer import WriterBusy
from maskmill.storage.errors import (
    DamagedObject,
    DatasetError,
    Forgotten,
    LeaseLost,
    ObjectNotFound,
    Overtaken,
    Recalled,
)
from maskmill.storage.plan.marks import marks_of
from maskmill.storage.stores.base import ObjectStore
from tests.simulation.machine.world import Driver, Killed, World
from tests.storage.datasets import CREATED, IMAGES, MASKS, commit_images, commit_masks, plan_pictures

KEY, PICTURE, SHARD = "000000002", b"picture 1", 0
SCHEDULES = 150
MOST_TURNS = 6  # at the shard, then it is given up
MOST_CALLS = 60  # of the ingesting driver, about

Interrupt = Callable[[World, int], None]


def ingest(store: ObjectStore, clock: Callable[[], float]) -> None:
    """A worker's turn at the shard, and what its driver publishes."""
    with announce(store, "ingest", clock=clock):
        for _ in range(MOST_TURNS):
            try:
                settle_forgotten(store, created_utc=CREATED)
                images = _images(store)
                if ColumnVersion(store, "masks", MASKS).record(SHARD) is None:
                    commit_masks(store, images)
                made = {"images": IMAGES, "masks": MASKS}
                publish(store, made, settings={}, models={}, totals={}, created_utc=CREATED)
                return
            except (Recalled, Overtaken, ObjectNotFound, DatasetError):
                continue  # another turn, as the pool has it


def _images(store: ObjectStore) -> CommitRecord:
    version = ColumnVersion(store, "images", IMAGES)
    return version.record(SHARD) or commit_images(store, SHARD, bad=marks_of(store, SHARD))


def undisturbed(world: World, call: int) -> None:
    pass


def suspended(world: World, call: int) -> None:
    world.suspend("ingest", call)


def killed(world: World, call: int) -> None:
    world.kill("ingest", call)


@dataclass(frozen=True)
class Outcome:
    """What came of a schedule; `wrong` says how the image is back though `forget` returned."""

    world: World
    ingest: Driver
    forget: Driver
    wrong: str


def play(seed: int, photos: Path, interrupt: Interrupt) -> Outcome:
    """One schedule."""
    world = World(seed)
    plan_pictures(world.view("before"), str(photos), 4)
    interrupt(world, world.random.randrange(MOST_CALLS))
    maker = world.add("ingest", lambda store: ingest(store, world.clock))
    forgetter = world.add(
        "forget", lambda store: forget(store, [KEY], created_utc=CREATED, clock=world.clock)
    )
    world.run()
    wrong = back_again(world) if forgetter.error is None else ""
    return Outcome(world, maker, forgetter, wrong)


def back_again(world: World) -> str:
    """Where the image is, "" if nowhere."""
    named = [name for name, (data, _) in world.objects.items() if "/data/" in name and PICTURE in data]
    if named:
        return f"its bytes are in {named}"
    store = world.view("after")
    generation = latest(store)
    try:
        keys = [sample.key for sample in join(store, generation)] if generation is not None else []
    except DamagedObject as exc:
        return str(exc)
    except Forgotten:  # a generation of before the removal, published after it by who then stopped
        assert not verify(store).ok
        return ""
    return "it is in the latest generation" if KEY in keys else ""


@pytest.mark.parametrize("interrupt", [undisturbed, suspended])
def test_what_is_forgotten_stays_away(tmp_path: Path, interrupt: Interrupt) -> None:
    ends = {"forgotten": 0, "refused": 0, "lost": 0}
    for seed in range(SCHEDULES):
        found = play(seed, tmp_path, interrupt)
        assert not found.wrong, f"seed {seed}: {found.wrong}\n" + "\n".join(found.world.history)
        assert found.ingest.error is None or isinstance(found.ingest.error, LeaseLost), seed
        refused = isinstance(found.forget.error, DatasetError | WriterBusy | LeaseLost)
        assert found.forget.error is None or refused, (seed, found.forget.error)
        ends["forgotten"] += found.forget.error is None
        ends["refused"] += found.forget.error is not None
        ends["lost"] += found.ingest.error is not None
        finish(found, seed)
    assert ends["forgotten"] > SCHEDULES // 10 and ends["refused"] > SCHEDULES // 10, ends
    assert (ends["lost"] > 0) == (interrupt is suspended), ends


def finish(found: Outcome, seed: int) -> None:
    """The same command once more, when nobody is left; then the dataset is sound, or says what it lacks."""
    found.world.now_s += 1000
    store = found.world.view("after")
    try:
        forget(store, [KEY], created_utc=CREATED, clock=found.world.clock)
        assert plan_forget(store, [KEY]).done, seed
    except ObjectNotFound:
        assert verify(store).damaged, seed
    assert not back_again(found.world), seed

    # Killed before it could withdraw a record whose objects are gone: `--repair` makes them again
    report = verify(store, deep=True)
    assert not report.duplicated, (seed, report.problems)
    if report.damaged:
        assert isinstance(found.ingest.error, Killed), (seed, report.problems)
        assert all("no such object" in problem for problem in report.problems), (seed, report.problems)


def test_a_driver_killed_between_commit_and_second_look_is_told_of(tmp_path: Path) -> None:
    """The one moment that no driver can see to itself: `verify` names it, and `forget` again cures it."""
    told = 0
    for seed in range(4 * SCHEDULES):
        if told and seed > SCHEDULES // 2:
            break
        found = play(seed, tmp_path, killed)
        assert found.ingest.error is None or isinstance(found.ingest.error, Killed | LeaseLost), seed
        if found.wrong:
            told += 1
            problems = verify(found.world.view("after"), deep=True).problems
            assert any("forgotten" in one and "maskmill forget" in one for one in problems), (seed, problems)
        finish(found, seed)
    assert told, "no schedule came upon it"


@pytest.mark.parametrize("interrupt", [undisturbed, suspended])
def test_without_the_second_look_the_schedules_find_it(
    tmp_path: Path, interrupt: Interrupt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit that reads no marks and knows of no lease: the simulation can tell."""
    monkeypatch.setattr(columns, "marks_of", lambda store, shard: frozenset())
    monkeypatch.setattr(columns, "check_lease", lambda store: None)
    monkeypatch.setattr(generations, "refuse_forgotten", lambda store, rows: None)
    if interrupt is undisturbed:
        monkeypatch.setattr("maskmill.storage.care.forget._refuse_company", lambda *args: None)
    assert any(play(seed, tmp_path, interrupt).wrong for seed in range(SCHEDULES))
