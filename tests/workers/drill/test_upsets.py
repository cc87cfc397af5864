"""The second set of a drill's faults, part by part: clocks, pauses, records, commands, and the comparison."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from maskmill.storage.care.forget import forget
from maskmill.storage.care.verify import verify
from maskmill.storage.clock import now_utc
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.drill.inputs import write_part
from maskmill.workers.drill.job import DriverJob
from maskmill.workers.drill.orders import Order, Orders
from maskmill.workers.drill.same import compare, work_in_peace, work_undisturbed
from maskmill.workers.drill.schedule import make_schedule
from maskmill.workers.drill.stages import drill_spec
from maskmill.workers.drill.upsets import names, records
from maskmill.workers.drill.upsets.beside import MOST_AT_ONCE, Beside
from maskmill.workers.drill.upsets.clocks import JUMPS_S
from maskmill.workers.drill.upsets.pauses import Pauses
from maskmill.workers.drill.upsets.records import try_damages
from maskmill.workers.jobs.repair import repair

CLOCK = """
import sys, time
from pathlib import Path
from datetime import UTC, datetime
from maskmill.storage.clock import now_utc
from maskmill.storage.drivers import lease
from maskmill.workers.drill.orders import Orders
from maskmill.workers.drill.upsets import clocks
real = time.time
clocks.install(Orders(Path(sys.argv[1])))
off = time.time() - real()
said = datetime.fromisoformat(now_utc()).timestamp() - real()
print(round(off), abs(said - off) < 2, lease.announce.__kwdefaults__["interval_s"] == clocks.BEAT_S)
"""


@pytest.mark.parametrize("number", range(len(JUMPS_S) + 1))
def test_a_clock_jumps_when_it_meets_an_order(number: int, tmp_path: Path) -> None:
    orders = Orders(tmp_path)
    if number < len(JUMPS_S):
        orders.give(Order(number, names.CLOCK_JUMP))
    done = subprocess.run([sys.executable, "-c", CLOCK, tmp_path], capture_output=True, text=True, check=True)
    expected = JUMPS_S[number] if number < len(JUMPS_S) else 0
    assert done.stdout.split() == [str(round(expected)), "True", "True"]
    assert orders.num_open() == 0


def test_who_is_stopped_sleeps_for_so_long_and_goes_on() -> None:
    def becomes(pid: int, states: str) -> bool:
        """Signals are delivered when the kernel comes to it."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in states:
                return True
            time.sleep(0.01)
        return False

    now = 100.0
    pauses = Pauses(clock=lambda: now)
    with subprocess.Popen(["/bin/sleep", "60"]) as sleeper:
        try:
            assert pauses.stop(sleeper.pid, 5.0) and not pauses.stop(sleeper.pid, 5.0)
            now = 104.0
            pauses.wake()
            assert becomes(sleeper.pid, "T") and pauses.sleeps(sleeper.pid)
            now = 105.0
            pauses.wake()
            assert becomes(sleeper.pid, "SRD") and not pauses.sleeps(sleeper.pid)
            assert pauses.stop(sleeper.pid, 5.0)
            assert becomes(sleeper.pid, "T")
            pauses.wake(all_of_them=True)
            assert becomes(sleeper.pid, "SRD")
        finally:
            sleeper.kill()
    assert not pauses.stop(sleeper.pid, 5.0), "it is gone"


@pytest.mark.parametrize("num_faults", [20, 77])
def test_a_schedule_of_upsets_has_every_kind(num_faults: int) -> None:
    schedule = make_schedule(3, num_faults, s3=False, kinds="upsets")
    counts = Counter(kind for part in schedule.rounds for kind in part.faults) + Counter(
        schedule.damaged_records
    )
    assert counts.keys() == names.WEIGHTS.keys() and counts.total() == num_faults
    assert schedule == make_schedule(3, num_faults, s3=True, kinds="upsets")
    assert schedule != make_schedule(4, num_faults, s3=False, kinds="upsets")
    assert not make_schedule(3, num_faults, s3=False).damaged_records
    with pytest.raises(ValueError, match="crashes, upsets"):
        make_schedule(3, num_faults, s3=False, kinds="nosuch")


@pytest.fixture
def part(tmp_path: Path) -> Path:
    write_part(tmp_path / "inputs" / "part-00", seed=5, num_images=12, num_poison=0, num_damaged=3)
    return tmp_path / "inputs" / "part-00"


@pytest.fixture
def worked(part: Path, tmp_path: Path) -> ObjectStore:
    store = open_store(tmp_path / "data")
    work_undisturbed(store.root, [str(part)], 4)
    return store


def repair_all(store: ObjectStore) -> None:
    specs = [drill_spec(store.root), drill_spec(store.root, revision=2)]
    repair(store, specs, work_in_peace, deep=True, created_utc=now_utc())


@pytest.mark.parametrize("kind", names.DAMAGES)
def test_damaged_records_are_named_and_mended(kind: str, worked: ObjectStore) -> None:
    outcome = try_damages(worked, {kind: 3}, random.Random(7), lambda: repair_all(worked))
    assert (outcome.undetected, outcome.problems) == (0, ())
    assert outcome.num_hurt == {kind: 3} and verify(worked, deep=True).ok


def test_damage_that_nobody_names_is_found(worked: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = verify

    def blind(store: ObjectStore, *, deep: bool) -> object:
        return dataclasses.replace(real(store, deep=deep), problems=())

    monkeypatch.setattr(records, "verify", blind)
    outcome = try_damages(worked, {names.DAMAGED_PLAN: 2}, random.Random(7), lambda: None)
    assert outcome.undetected == 2 and "verify does not name plan/" in outcome.problems[0]


def test_what_is_forgotten_is_no_loss_and_must_be_gone(
    worked: ObjectStore, part: Path, tmp_path: Path
) -> None:
    undisturbed = open_store(tmp_path / "undisturbed")
    work_undisturbed(undisturbed.root, [str(part)], 4)
    asked = {"000000002"}
    assert compare(worked, undisturbed, forgotten=asked).different, "it is still there"
    forget(worked, asked, created_utc=now_utc())
    found = compare(worked, undisturbed, forgotten=asked)
    assert (found.lost, found.different, found.problems) == (0, 0, ())
    assert compare(worked, undisturbed).different + compare(worked, undisturbed).lost > 0


ECHO = """
import json, sys, time
job = json.loads(sys.argv[-1])
print(job["command"], *job["words"])
time.sleep(2)
"""


def test_commands_are_given_what_they_need(worked: ObjectStore, part: Path, tmp_path: Path) -> None:
    beside = Beside([sys.executable, "-c", ECHO], tmp_path / "scratch", worked, random.Random(1))
    (tmp_path / "scratch").mkdir()
    beside.prepare(part)
    given = json.loads((tmp_path / "scratch" / "given.json").read_text())
    assert {entry["file_name"].split("/")[0] for entry in given["images"]} == {"part-00"}
    assert len(given["images"]) == len(given["annotations"]) > 0

    job = DriverJob(
        dataset=worked.root,
        inputs=[],
        shard_size=4,
        address="",
        workers=1,
        seconds=0.0,
        deadline_s=1.0,
        orders="",
        events="",
    )
    started = [
        beside.start(kind, job, {}) for kind in (names.FORGET, names.IMPORT, names.EXPORT, names.RELABEL)
    ]
    assert started == [True] * MOST_AT_ONCE + [False], "no more at once"
    while beside.num_live():
        time.sleep(0.05)
    assert beside.take_ends() == ["complete"] * MOST_AT_ONCE and not beside.crashes
    logs = sorted((tmp_path / "scratch" / "commands").glob("*.log"))
    said = [log.read_text().split() for log in logs]
    assert [words[0] for words in said] == ["forget", "import", "export"]
    assert set(said[0][1:]) == beside.forgotten and said[1][1].endswith("given.json")
    empty = Beside(["false"], tmp_path, open_store(tmp_path / "empty"), random.Random(1))
    assert not empty.start(names.COLLECT, job, {}), "there is nothing yet"
