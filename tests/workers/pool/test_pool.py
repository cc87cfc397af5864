"""The pool on a real Ray cluster, with workers that die, hang and fail."""

from __future__ import annotations

import functools
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.storage.stores.open import open_store
from maskmill.workers.pool.pool import run_pool
from maskmill.workers.run.columns import Sections
from maskmill.workers.run.events import PoolEvent, Progress, RunStopped, ShardDone, ShardFailed, WorkerLost
from maskmill.workers.run.spec import IMAGES, MASKS, Resources, RunSpec, ShardTask
from maskmill.workers.shard.turn import CRASHED, run_shard
from maskmill.workers.stages.build import Stages
from tests import fakes
from tests.fakes import FULL_DISK, HANGS, IS_A_BUG, KILLS, FakeMasks, build_fake_stages, write_pictures

if TYPE_CHECKING:
    from maskmill.workers.pool.actors import Worker
    from tests.workers.conftest import Dataset

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

MakeDataset = Callable[..., "Dataset"]
ONE_CPU = Resources(num_cpus=1)


class Starter:
    """Starts workers with fakes in them and remembers them."""

    def __init__(
        self, spec: RunSpec, build: Callable[[RunSpec], Stages], resources: Resources = ONE_CPU
    ) -> None:
        import ray

        ray.cloudpickle.register_pickle_by_value(fakes)
        self.spec, self.build, self.resources = spec, build, resources
        self.workers: list[Worker] = []

    def __call__(self) -> Worker:
        from maskmill.workers.pool.actors import start_worker

        self.workers.append(start_worker(self.spec, self.resources, self.build))
        return self.workers[-1]

    def pids(self) -> list[int]:
        """Of those that are ready, dead ones included."""
        import ray

        refs = [worker.ready for worker in self.workers]
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        return [ray.get(ref).pid for ref in refs if ref in ready]


def fake(masks: FakeMasks | None = None) -> Callable[[RunSpec], Stages]:
    return functools.partial(build_fake_stages, masks=masks or FakeMasks())


def run(data: Dataset, starter: Starter | None = None, **options: object) -> list[PoolEvent]:
    starter = starter or Starter(data.spec, fake())
    settings = {"resources": starter.resources, "num_workers": 2, "progress_every_s": 0.1, **options}
    return list(run_pool(data.spec, range(data.num_shards), make_actor=starter, **settings))  # type: ignore[arg-type]


def undisturbed(data: Dataset, make_dataset: MakeDataset) -> Dataset:
    """The same inputs worked without ray."""
    other = make_dataset(0, data.num_images_per_shard, name="undisturbed")
    for shard in range(other.num_shards):
        run_shard(build_fake_stages(other.spec, FakeMasks()), ShardTask(shard=shard, attempt=f"{shard:016d}"))
    return other


def assert_equal_columns(data: Dataset, other: Dataset) -> None:
    for column in (IMAGES, MASKS):
        assert data.contents(column) == other.contents(column)
        assert data.rejects(column) == other.rejects(column)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def test_killed_workers_lose_and_repeat_nothing(make_dataset: MakeDataset) -> None:
    data = make_dataset(24, 4)
    starter = Starter(data.spec, fake(FakeMasks(seconds=0.1)), Resources(num_cpus=2))
    events: list[PoolEvent] = []
    killed: list[int] = []
    running = run_pool(
        data.spec,
        range(data.num_shards),
        resources=starter.resources,
        num_workers=8,  # the cluster's 4 CPUs have room for 2
        make_actor=starter,
        progress_every_s=0.1,
    )
    for event in running:
        events.append(event)
        if isinstance(event, Progress) and event.images_done >= 6 * (len(killed) + 1) and len(killed) < 2:
            killed.append(next(pid for pid in starter.pids() if pid not in killed))
            os.kill(killed[-1], signal.SIGKILL)
    done = [event for event in events if isinstance(event, ShardDone)]
    lost = [event for event in events if isinstance(event, WorkerLost)]
    assert sorted(event.report.shard for event in done) == list(range(6))
    assert len(lost) == 2 and not any(event.node_lost for event in lost)
    attempts = Counter(event.shard for event in lost)
    assert {event.report.shard: event.attempts - 1 for event in done if event.attempts > 1} == {
        shard: count for shard, count in attempts.items() if shard is not None
    }
    progress = [event for event in events if isinstance(event, Progress)]
    assert max(event.workers_ready + event.workers_starting for event in progress) == 2
    assert any(event.images_done % 4 > 0 for event in progress), "progress shows inside shards"
    assert_equal_columns(data, undisturbed(data, make_dataset))


def test_a_poison_image_is_left_out_and_named(make_dataset: MakeDataset) -> None:
    data = make_dataset(6, 3, special={4: KILLS})
    events = run(data, num_workers=1, max_attempts=3)
    assert not [event for event in events if isinstance(event, ShardFailed)]
    done = {event.report.shard: event for event in events if isinstance(event, ShardDone)}
    assert sorted(done) == [0, 1]
    assert done[1].attempts == 6  # two that died, three that named the image, one without it
    assert len([event for event in events if isinstance(event, WorkerLost)]) == 5
    assert data.rejects(MASKS) == {"000000005": CRASHED} and not data.rejects(IMAGES)
    assert len(data.contents(MASKS)) == 5 and len(data.contents(IMAGES)) == 6
    assert done[1].report.rejects == {CRASHED: 1}


def test_a_shard_past_its_deadline_is_given_up_and_the_others_done(make_dataset: MakeDataset) -> None:
    data = make_dataset(4, 2, special={1: HANGS})
    events = run(data, num_workers=1, max_attempts=1, deadline_s=6.0)
    failed = [event for event in events if isinstance(event, ShardFailed)]
    assert [(event.shard, event.attempts) for event in failed] == [(0, 1)]
    assert "deadline of 6 s" in failed[0].reason
    assert [event.report.shard for event in events if isinstance(event, ShardDone)] == [1]


@pytest.mark.parametrize(
    ("colour", "words"), [(IS_A_BUG, "a bug in our code"), (FULL_DISK, "free some space")]
)
def test_what_no_retry_helps_against_stops_the_run(
    make_dataset: MakeDataset, colour: tuple[int, int, int], words: str
) -> None:
    data = make_dataset(3, 3, special={1: colour})
    starter = Starter(data.spec, fake())
    with pytest.raises(RunStopped, match=words) as caught:
        run(data, starter)
    assert caught.value.shard == 0 and "image 000000002" in str(caught.value)
    assert wait_for(lambda: all(map(gone, starter.pids())), 10)


def test_errors_of_a_shard_are_retried_by_the_same_worker(make_dataset: MakeDataset) -> None:
    data = make_dataset(4, 2)
    for shard in (0, 1):
        run_shard(build_fake_stages(data.spec, FakeMasks()), ShardTask(shard=shard, attempt=f"{shard:016d}"))
    tar = Path(data.spec.root, data.record(IMAGES, 1).data.name)
    tar.write_bytes(tar.read_bytes()[:-512])
    Path(data.spec.root, data.version(MASKS).record_name(1)).unlink()
    starter = Starter(data.spec, fake())
    events = run(data, starter, max_attempts=2, num_workers=1)
    failed = [event for event in events if isinstance(event, ShardFailed)]
    assert [(event.shard, event.attempts) for event in failed] == [(1, 2)] and "DamagedObject" in failed[
        0
    ].reason
    assert not [event for event in events if isinstance(event, WorkerLost)]
    already = [event.report for event in events if isinstance(event, ShardDone)]
    assert [report.shard for report in already] == [0] and already[0].already_done


def cannot_load(spec: RunSpec) -> Stages:
    raise ValueError(f"{spec.segmenter.model}: no such weights")


def dies_while_loading(spec: RunSpec) -> Stages:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_workers_that_cannot_load_stop_the_run(make_dataset: MakeDataset) -> None:
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    data = make_dataset(1, 1)
    with pytest.raises(RunStopped, match="a worker could not start: nano: no such weights"):
        run(data, Starter(data.spec, cannot_load), num_workers=1)
    with pytest.raises(RunStopped, match="2 workers in a row were lost"):
        run(data, Starter(data.spec, dies_while_loading), num_workers=1, max_losses_in_a_row=1)


class CannotBegin:
    """An actor that raises before it is one."""

    def __init__(self) -> None:
        raise ImportError("no such library")

    def warm(self) -> None:
        raise AssertionError


def test_a_start_that_fails_alike_ends_the_run_soon_and_says_why(make_dataset: MakeDataset) -> None:
    import ray

    from maskmill.workers.pool.actors import Worker

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    data = make_dataset(1, 1)

    def start() -> Worker:
        actor = ray.remote(num_cpus=1, max_restarts=0)(CannotBegin).remote()
        return Worker(actor, actor.warm.remote())

    lost: list[WorkerLost] = []
    with pytest.raises(RunStopped) as caught:
        for event in run_pool(data.spec, [0], resources=ONE_CPU, num_workers=1, make_actor=start):
            lost += [event] if isinstance(event, WorkerLost) else []
    assert len(lost) == 3
    assert str(caught.value).startswith(
        "workers cannot start, 3 times in a row the same: ImportError: no such"
    )
    assert "test_pool.py, line" in str(caught.value) and "on every Ray node" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_room_stops_the_run_at_once(make_dataset: MakeDataset) -> None:
    data = make_dataset(1, 1)
    starter = Starter(data.spec, fake(), Resources(num_cpus=64))
    with pytest.raises(RunStopped, match="no live node has room for a worker with 64 CPUs"):
        run(data, starter)
    assert not starter.workers


def test_closing_stops_the_workers_promptly(make_dataset: MakeDataset) -> None:
    data = make_dataset(8, 4, special={0: HANGS})
    starter = Starter(data.spec, fake(FakeMasks(seconds=0.2)))
    running = run_pool(
        data.spec, iter([0, 1]), resources=ONE_CPU, num_workers=2, make_actor=starter, progress_every_s=0.1
    )
    with closing(running):
        for event in running:
            if isinstance(event, Progress) and event.images_done:
                break
        pids = starter.pids()
    assert pids and wait_for(lambda: all(map(gone, pids)), 10)


@pytest.fixture
def marks(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "marks").mkdir()
    yield tmp_path / "marks"


def num_events(marks: Path, kind: str) -> int:
    return len(list(marks.glob(f"event-*-{kind}")))


def test_a_killed_driver_is_followed_by_another(
    make_dataset: MakeDataset, marks: Path, tmp_path: Path
) -> None:
    import ray

    data = make_dataset(20, 4)
    spec = tmp_path / "spec"
    spec.write_bytes(pickle.dumps(data.spec))
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "tests.workers.pool.driver", address, spec, str(data.num_shards), marks]
    driver = subprocess.Popen(command, cwd=Path(__file__).parents[3], stderr=subprocess.PIPE)
    try:
        started = wait_for(lambda: num_events(marks, "ShardDone") > 0 or driver.poll() is not None, 200)
        assert started and driver.poll() is None, driver.stderr and driver.stderr.read().decode()
    finally:
        driver.kill()
        driver.communicate()
    committed = data.version(MASKS).committed()
    assert 0 < len(committed) < data.num_shards
    events = run(data)
    done = [event for event in events if isinstance(event, ShardDone)]
    assert sorted(event.report.shard for event in done) == list(range(5))
    assert {event.report.shard for event in done if event.report.already_done} >= committed
    assert_equal_columns(data, undisturbed(data, make_dataset))


def test_the_real_model_on_the_pool(make_dataset: MakeDataset, tmp_path: Path) -> None:
    """Nano's weights, loaded by a worker, give what they give here."""
    from maskmill.pipeline.weights.errors import MissingWeights
    from maskmill.workers.stages.build import build_stages

    write_pictures(tmp_path / "inputs", 2)
    lenient = MaskSettings(points_per_side=4, predicted_iou=0.0, stability=0.0)
    data = make_dataset(0, 2)
    one = SegmenterSettings(threads=1)  # as the worker has: digits are equal on equal threads
    settings = Sections({"segmenter": one, "masks": lenient})
    data = replace(data, spec=replace(data.spec, settings=settings))
    try:
        here = build_stages(data.spec)
    except MissingWeights:
        pytest.skip("nano's weights are not shipped yet")
    events = list(run_pool(data.spec, [0], resources=ONE_CPU, num_workers=1))
    reports = [event.report for event in events if isinstance(event, ShardDone)]
    assert [report.num_annotated for report in reports] == [2] and reports[0].num_masks > 0
    other = make_dataset(0, 2, name="here")
    stages = replace(here, spec=other.spec, store=open_store(other.spec.root))
    run_shard(stages, ShardTask(shard=0, attempt="h" * 16))
    assert_equal_columns(data, other)
