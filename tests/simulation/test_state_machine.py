"""A dataset's commands in any order against a model of what they mean, by hypothesis.

Each rule is one command of the real code, alone, over the simulated store; the model keeps what a user would
write down: which pictures were given, which are forgotten, what each generation held, where the tag points,
what people saved. After each command the dataset says the same.
"""

from __future__ import annotations

import random
from contextlib import ExitStack

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from maskmill.storage.care.forget import forget
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.generations import list_generations, load_generation
from maskmill.storage.dataset.join import join
from maskmill.storage.dataset.saves import saves_of
from maskmill.storage.dataset.tags import set_tag, tags
from maskmill.storage.errors import Forgotten, ObjectNotFound
from maskmill.storage.plan.plan import load_plans
from tests.simulation import actors
from tests.simulation.actors import CREATED, FIRST, INPUTS, OTHER, Scene, picture
from tests.simulation.machine.fates import DAY_S
from tests.simulation.machine.invariants import look
from tests.simulation.machine.one_thread import one_thread
from tests.simulation.machine.world import World


class Commands(RuleBasedStateMachine):
    """The dataset, and what a user would write down."""

    def __init__(self) -> None:
        super().__init__()
        self.open = ExitStack()
        self.open.enter_context(one_thread(random.Random(0)))
        self.world = World(0)
        self.store = self.world.view("user")
        self.scene = Scene(self.world)
        self.given = 0  # pictures that lie in the inputs
        self.planned = 0  # of them, those that have a key
        self.forgotten: set[str] = set()
        self.lost: set[str] = set()  # object names that a disk forgot
        self.ever_lost: set[str] = set()
        self.held: dict[int, list[str]] = {}  # generation -> keys with masks, when it was published
        self.masks: dict[int, str] = {}  # generation -> settings
        self.best: int | None = None
        self.saves: dict[str, int] = {}

    def teardown(self) -> None:
        """Ends what was opened."""
        self.open.close()

    def keys(self) -> list[str]:
        """Those that must be in the latest generation."""
        return [key for key in (f"{n + 1:09d}" for n in range(self.planned)) if key not in self.forgotten]

    def published(self, masks: str | None = None) -> None:
        """Takes note of a generation, if the last command made one."""
        newest = max(list_generations(self.store), default=0)
        if newest and newest not in self.held:
            self.held[newest] = self.keys()
            self.masks[newest] = masks or self.masks[newest - 1]

    @rule(number=st.integers(1, 3))
    def bring_pictures(self, number: int) -> None:
        """New files."""
        place = self.world.spaces.setdefault(INPUTS.removeprefix("sim://"), {})
        for n in range(self.given, self.given + number):
            place[f"{n:03d}.png"] = (picture(n), self.world.now_s)
        self.given += number

    @precondition(lambda self: self.given and not self.lost)
    @rule()
    def generate(self) -> None:
        """Plans, makes, publishes."""
        actors.settle(self.store)
        actors.make_plan(self.store, [INPUTS], shard_size=actors.SHARD_SIZE)
        spec = actors.spec_of(self.store)
        actors.work(self.store, FIRST, sorted(actors.pending_shards(spec)))
        actors.publish_and_verify(spec, actors.config())
        self.planned = self.given
        self.published(FIRST)

    @precondition(lambda self: self.held and not self.lost)
    @rule()
    def relabel(self) -> None:
        """Other masks of all that is planned."""
        actors.relabel(self.scene, self.store)
        self.published(OTHER)

    @precondition(lambda self: self.planned)
    @rule(which=st.integers(0, 20))
    def forget(self, which: int) -> None:
        """One picture goes; doing it again changes nothing."""
        key = f"{which % self.planned + 1:09d}"
        forget(self.store, [key], created_utc=CREATED, clock=self.world.clock)
        self.forgotten.add(key)
        self.saves.pop(key, None)
        self.published()

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 20))
    def lose_an_object(self, which: int) -> None:
        """A disk forgets masks of the latest generation."""
        rows = [row for row in load_generation(self.store, max(self.held)).rows() if row.column == "masks"]
        name = rows[which % len(rows)].data.name
        if self.world.objects.pop(name, None) is not None:
            self.lost.add(name)
            self.ever_lost.add(name)

    @precondition(lambda self: self.held)
    @rule()
    def repair(self) -> None:
        """Makes again what is lost."""
        actors.mend(self.scene, self.store)
        self.lost.clear()
        self.published()

    @precondition(lambda self: self.planned)
    @rule(days=st.sampled_from([0, 2]), versions=st.booleans())
    def collect(self, days: int, versions: bool) -> None:
        """Nothing that anybody names goes."""
        self.world.now_s += days * DAY_S
        (actors.collect_versions if versions else actors.collect)(self.scene, self.store)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 20))
    def tag(self, which: int) -> None:
        """Names one of the generations."""
        self.best = sorted(self.held)[which % len(self.held)]
        set_tag(self.store, "best", self.best, created_utc=CREATED)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 20), who=st.sampled_from(["ann", "bob"]))
    def review(self, which: int, who: str) -> None:
        """A person saves a picture."""
        key = f"{which % self.planned + 1:09d}"
        if key not in self.forgotten:
            store = self.world.view(f"{who}{sum(self.saves.values())}")
            actors.reviewing(key)(self.scene, store)
            self.saves[key] = self.saves.get(key, 0) + 1

    @invariant()
    def generations_hold_what_they_held(self) -> None:
        """The latest one exactly; earlier ones too, or they say that something was forgotten since."""
        assert sorted(self.held) == list_generations(self.store)
        for number, keys in self.held.items() if not self.lost else ():
            try:
                found = [
                    s.key for s in join(self.store, load_generation(self.store, number), ("masks", "images"))
                ]
            except ObjectNotFound as exc:
                rows = load_generation(self.store, number).rows()
                if self.ever_lost & {row.data.name for row in rows} and number != max(self.held):
                    continue  # repaired in a later one
                assert isinstance(exc, Forgotten)
                assert number != max(self.held) and self.forgotten & set(keys)
                continue
            wanted = [key for key in keys if key not in self.forgotten] if number == max(self.held) else keys
            assert found == wanted
            assert load_generation(self.store, number).columns["masks"] == self.masks[number]

    @invariant()
    def it_is_sound_and_says_so(self) -> None:
        """Planned, and nothing of it missing, but for what a disk lost."""
        if self.held:
            found, report = look(self.world.objects), verify(self.store, deep=True)
            assert found.sound == report.ok == (not self.lost), (found, report.problems, self.lost)

    @invariant()
    def small_records_say_what_was_said(self) -> None:
        """Plans, tags, saves."""
        assert load_plans(self.store).num_images == self.planned
        assert load_plans(self.store).forgotten == self.forgotten
        assert {name: one.generation for name, one in tags(self.store).items()} == (
            {"best": self.best} if self.best else {}
        )
        for key, number in self.saves.items():
            assert len(saves_of(self.store, key)) == number


TestCommands = Commands.TestCase
TestCommands.settings = settings(
    max_examples=25,
    stateful_step_count=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
