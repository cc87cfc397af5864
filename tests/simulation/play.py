"""One schedule: a dataset with a past, actors that the seed chooses, its world's troubles, and what came of
it.

    python -m tests.simulation.play SEED          prints the steps and what is wrong, if anything

The end is looked at three times: when the last actor has ended, against what `verify` says; after a quiet day
on which people finish what they were told to finish; and after that the dataset must be whole, and `verify`
say so.
"""

from __future__ import annotations

import os
import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from maskmill.storage.care.forget import forget
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset import manifest
from maskmill.storage.errors import StorageError
from maskmill.storage.plan import plan as plans
from maskmill.storage.plan import tables
from maskmill.workers.exports.report import ExportError
from tests.simulation import actors
from tests.simulation.actors import INPUTS, KINDS, Scene, persistent, picture
from tests.simulation.machine.fates import DAY_S, Dice, Fate, Fates
from tests.simulation.machine.invariants import Watch, broken_links, look, lost_saves
from tests.simulation.machine.one_thread import one_thread
from tests.simulation.machine.store import SimStore, newest, opened_by_address
from tests.simulation.machine.world import Killed, World

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CRASHES = {fate.value for fate in (Fate.KILLED, Fate.DIES_AFTER, Fate.FAILS, Fate.FAILS_AFTER, Fate.FULL)}
HALF_WRITTEN = "or its writer was killed before it"  # a table without its record: which, nobody can tell
EXPECTED = (StorageError, ExportError, Killed)


@dataclass
class Outcome:
    """What came of a schedule.

    Attributes:
        seed: its.
        wrong: promises that were broken; none in a good one.
        switches: how often a call was another one's than the call before it.
        calls: to a store.
        kinds: of actors that took part.
        hits: how often each kind of call met each fate.
        steps: every call, and what became of it.
    """

    seed: int
    wrong: list[str] = field(default_factory=list)
    switches: int = 0
    calls: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    hits: Counter[tuple[str, str]] = field(default_factory=Counter)
    steps: list[str] = field(default_factory=list)

    def story(self) -> str:
        """For people: what is wrong, and every step that led there."""
        return "\n".join([f"seed {self.seed}: {one}" for one in self.wrong] + self.steps)


def play(seed: int, kinds: Sequence[str] | None = None, fates: Fates | None = None) -> Outcome:
    """Plays a schedule.

    Args:
        seed: decides everything.
        kinds: of actors; None lets the seed choose.
        fates: of calls; None lets the seed choose.
    """
    dice = random.Random(f"schedule {seed}")
    world = World(seed, fates if fates is not None else Dice.drawn_by(random.Random(f"fates {seed}")))
    outcome, scene, watch = Outcome(seed), Scene(world, workers=dice.choice([1, 2, 2])), Watch()
    watch.objects = world.objects
    world.on_change = watch.change
    try:
        with one_thread(random.Random(f"names {seed}")):
            past(world, scene, dice)
            cast(world, scene, dice, kinds if kinds is not None else chosen(dice), outcome)
            world.run()
            outcome.wrong += [*judged(world, scene), *aftermath(world, scene)]
        outcome.wrong += watch.broken + scene.broken
    finally:
        _forget_caches()
    outcome.switches, outcome.calls, outcome.hits = world.num_switches, len(world.history), world.hits
    outcome.steps = world.history
    return outcome


def chosen(dice: random.Random) -> list[str]:
    """Three to five actors; somebody makes something in most schedules."""
    first = dice.choice(["generate", "generate", "generate in parts", "relabel", "repair", "forget"])
    return [first, *dice.choices(sorted(KINDS), k=dice.choice([3, 3, 3, 4, 4, 5]))]


def cast(world: World, scene: Scene, dice: random.Random, kinds: Sequence[str], outcome: Outcome) -> None:
    """Puts the actors on stage; some begin later."""
    for number, kind in enumerate(kinds):
        driver = world.add(f"{kind.replace(' ', '-')}.{number}", persistent(scene, KINDS[kind]))
        driver.offset_s = dice.uniform(-10 * DAY_S, 10 * DAY_S)
        driver.wakes_s = world.now_s + dice.choice([0.0, 0.0, 0.0, 20.0, 60.0])
        outcome.kinds[kind] += 1


def past(world: World, scene: Scene, dice: random.Random) -> None:
    """What was there before: nothing, a generation, more inputs since, half of other masks, damage."""
    inputs = world.spaces.setdefault(INPUTS.removeprefix("sim://"), {})
    store = world.view("past")
    inputs |= {f"{number}.png": (picture(number), world.now_s) for number in range(4)}
    what = dice.choice(["nothing", "generation", "more", "more", "halfway"])
    if what != "nothing":
        for name, data in made_before(what == "halfway").items():
            store.put(name, data)
        strew(store, dice)
        world.now_s += 10 * DAY_S
        if dice.random() < 0.15:
            scene.spoiled = spoil(world, dice)
    if what != "generation":
        inputs |= {f"{number}.png": (picture(number), world.now_s) for number in range(4, 7)}


@cache
def made_before(halfway: bool) -> dict[str, bytes]:
    """A dataset of the first four pictures; `halfway`, with other masks of the first shard, not published."""

    def work(store: SimStore) -> None:
        """By one who is alone."""
        alone(store)
        if halfway:
            actors.work(store, actors.OTHER, [0])

    return made_by(work, 4)


def made_by(work: Callable[[SimStore], None], num_pictures: int) -> dict[str, bytes]:
    """What a dataset holds after that, done in a world of its own: to be kept, it is the same every time."""
    played = newest[:]
    world = World(0)
    world.spaces[INPUTS.removeprefix("sim://")] = {
        f"{number}.png": (picture(number), world.now_s) for number in range(num_pictures)
    }
    with one_thread(random.Random("names of the past")):  # never drawn again by what is played on it
        work(world.view("before"))
    newest[:] = played
    return {name: data for name, (data, _) in world.objects.items()}


def alone(store: SimStore) -> None:
    """A `generate` with nobody beside it."""
    actors.make_plan(store, [INPUTS], shard_size=actors.SHARD_SIZE)
    spec = actors.spec_of(store)
    actors.work(store, actors.FIRST, sorted(actors.pending_shards(spec)))
    actors.publish_and_verify(spec, actors.config())


def strew(store: SimStore, dice: random.Random) -> None:
    """What killed workers left: an object that no record names, a write that never ended."""
    name = f"masks/{actors.FIRST}/data/000000.{'f' * 16}.tar"
    if dice.random() < 0.5:
        store.put(name, bytes(10240))
    for number in range(dice.choice([0, 1, 2])):
        store._open[f"{name}~{number:010x}"] = store.world.now_s


def spoil(world: World, dice: random.Random) -> str:
    """A disk forgets an object of a shard; gives its name."""
    held = [name for name in sorted(world.objects) if "/data/" in name and "f" * 16 not in name]
    name = dice.choice(held)
    del world.objects[name]
    return name


def judged(world: World, scene: Scene) -> list[str]:
    """When all have ended: is what they say of themselves and of the dataset true?"""
    wrong = [
        f"{driver.name}: {type(driver.error).__name__}: {driver.error}"
        for driver in world.drivers
        if driver.error is not None and not isinstance(driver.error, EXPECTED)
    ]
    wrong += [*broken_links(world.objects), *lost_saves(world.objects, scene.saved)]
    found = look(world.objects)
    if not scene.spoiled:
        wrong += [one for one in found.lost if "named and gone" in one]
    if scene.forgotten & _said(found.forgotten) and not CRASHES & {fate for _, fate in world.hits}:
        wrong += found.forgotten  # who is killed between its write and its second look can't take it back
    return wrong + agreed(world, "at the end")


def _said(forgotten: Sequence[str]) -> set[str]:
    return {key for one in forgotten for key in one.rpartition(": ")[2].split(", ")}


def agreed(world: World, when: str) -> list[str]:
    """`verify` says sound exactly when the dataset is."""
    if not any(name.startswith("plan/") and name.endswith(".json") for name in world.objects):
        return []
    found, report = look(world.objects), verify(world.view("verify"), deep=True)
    told = [one for one in report.problems if HALF_WRITTEN not in one]
    if found.sound == (report.ok or not told):
        return []
    said = "; ".join(report.problems) or f"{report.missing} missing" if not report.ok else "sound"
    there = "; ".join([*found.lost, *found.wrong, *found.forgotten]) or "sound"
    return [f"{when} verify says: {said}; the bytes say: {there}"]


def aftermath(world: World, scene: Scene) -> list[str]:
    """A quiet day: everybody's command once more. Afterwards the dataset is whole."""
    world.drivers.clear()
    world.fates = Fates()
    world.now_s += 2 * DAY_S
    store = world.view("quiet")
    try:
        if scene.spoiled:  # else nothing has to be repaired
            actors.mend(scene, store)
        generate_alone(world, store)
        report = verify(store)
        if report.damaged or report.missing:
            actors.mend(scene, store)
        needed = "" if scene.spoiled or not (report.damaged or report.missing) else "; ".join(report.problems)
        marked = plans.load_plans(store).forgotten
        if marked:
            forget(store, sorted(marked), created_utc=actors.CREATED, clock=world.clock_of(store))
        actors.collect(scene, store)
    except (StorageError, ExportError) as exc:
        return [f"a quiet run fails: {type(exc).__name__}: {exc}"]
    found, report = look(world.objects), verify(store, deep=True)
    wrong = [f"a repair was needed though nothing was lost: {needed}"] if needed else []
    wrong += [f"after a quiet run {one}" for one in (*found.lost, *found.wrong, *found.forgotten)]
    wrong += [f"after a quiet run verify says {one}" for one in report.problems]
    wrong += lost_saves(world.objects, scene.saved)
    wrong += ["a forgotten key is not marked" for key in scene.forgotten - set(marked)]
    return wrong


def generate_alone(world: World, store: SimStore) -> None:
    """A quiet `generate`."""
    with actors.announce(store, "generate", clock=world.clock_of(store)) as lease:
        actors.one_writer.await_collector(store, lease.driver_id, poll_s=1.0, sleep=world.sleep)
        actors.settle(store)
        alone(store)


def _forget_caches() -> None:
    """What the product remembers of worlds that are gone."""
    for cached in (
        plans._parse_part,
        tables.group_images,
        tables._metadata,
        tables.read_names,
        tables.read_merged,
        manifest.manifest_rows,
        manifest.small_manifest,
    ):
        cached.cache_clear()


def main() -> int:
    """One seed, told in full where something is wrong or -v asks for it."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets decides calls too
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    with opened_by_address():
        outcome = play(int(sys.argv[1]))
    told = outcome.story() if outcome.wrong or "-v" in sys.argv else f"seed {outcome.seed}: nothing is wrong"
    sys.stdout.write(f"{told}\n")
    return bool(outcome.wrong)


if __name__ == "__main__":
    raise SystemExit(main())
