"""Runs shards on a bounded pool of ray actors that pull them one at a time; yields what happens.

Ray retries nothing here: the driver owns every attempt. What can befall a turn, and what is done:

    the worker dies, or passes the deadline   counted against the shard; another worker tries it again
    Ray itself goes on this machine           the run ends with `NodeLost`: who started it may begin again
    the joined cluster's head goes            the run ends with `ClusterLost`
    its node goes                             not counted; ray takes a while to notice it, so a death
                                              elsewhere stays in doubt meanwhile (history.py)
    a listed error (store down, object gone)  counted; the worker is fine and goes on
    access denied, disk full, our own bug     the run stops with the shard named
    two deaths on one shard                   from then on one image at a time, announced first: an image
                                              that kills twice is left out and recorded, the rest kept
    the same error at three starts in a row   the run stops with it
    `max_attempts` counted turns              the shard is given up; the run goes on without it

Dead workers are replaced, and not for ever: too many losses with nothing achieved in between stop the run.
The pool grows with the nodes that join and shrinks with those that leave; workers that nothing is left for
are let go. Beyond what the live nodes have room for, it starts workers only where an autoscaler is there to
see them wait: they are the demand it acts on, and they go when the driver does, unlike a standing request
for resources. A turn done twice costs time only (columns.py decides which one counts).

What it doesn't know: what a shard is. It doesn't start ray; `ray.init` comes first.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import cycle, islice

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from maskmill.storage.drivers.shard_feed import ShardFeed
from maskmill.storage.stores.open import open_store
from maskmill.workers.pool.actors import Worker, WorkerInfo, start_worker
from maskmill.workers.pool.blame import RETRIED, Doubt, Doubts, History
from maskmill.workers.pool.last_words import StartRounds, last_words, raised_at_start, start_advice
from maskmill.workers.pool.limits import Limits
from maskmill.workers.pool.own_node import check_own_node
from maskmill.workers.pool.seat import Seat
from maskmill.workers.pool.todo import Todo
from maskmill.workers.run.events import (
    ClusterLost,
    NodeLost,
    PoolEvent,
    Progress,
    RunStopped,
    ShardDone,
    ShardFailed,
    WorkerLost,
)
from maskmill.workers.run.in_hand import last_announced
from maskmill.workers.run.nodes import live_nodes, room_for
from maskmill.workers.run.spec import Resources, RunSpec, ShardProgress, ShardReport, ShardTask

log = logging.getLogger(__name__)

JUDGE_EVERY_S = 0.5
START_DEADLINE_S = 600.0
ROOM_DEADLINE_S = 120.0
NODES_DEADLINE_S = 1800.0
"""What an autoscaler may take to bring the first node."""

IDLE_S = 30.0
"""A worker that has had nothing to do for so long is let go; a shard that comes back starts another."""

MAX_QUEUED = 64
"""Workers that wait for an autoscaler's nodes at a time."""

MAX_POLLS = 64
"""Workers asked for their progress at a time; the others have their turn with the next event."""


def run_pool(
    spec: RunSpec,
    shards: Iterable[int] | ShardFeed,
    *,
    resources: Resources,
    num_workers: int | None = None,
    max_attempts: int = 3,
    deadline_s: float | None = None,
    make_actor: Callable[[], Worker] | None = None,
    progress_every_s: float = 1.0,
    max_losses_in_a_row: int | None = None,
    autoscale: bool = False,
) -> Generator[PoolEvent]:
    """Works shards until each is done or given up. Closing the generator stops all workers at once.

    Args:
        spec: of the run.
        shards: numbers, pulled as workers come free; of a feed more may come while others are worked.
        resources: of each worker.
        num_workers: at most so many; None is as many as the cluster has room for.
        max_attempts: turns that may fail before a shard is given up.
        deadline_s: for one turn at a shard (one by one: for each image); None waits for ever.
        make_actor: starts a worker, or hands out one started before; None is `start_worker(spec, resources)`.
        progress_every_s: between two `Progress` events.
        max_losses_in_a_row: workers lost with nothing achieved in between before the run stops; None is 8
            and 4 a worker.
        autoscale: workers that the live nodes have no room for, up to `num_workers`, wait in ray's queue,
            where the cluster's autoscaler sees them and adds nodes. Without one they wait in vain.

    Raises:
        RunStopped: an error that no retry helps against, or workers that can't start or live.
        NodeLost: Ray's own processes, which this one started, have ended.
        ClusterLost: the cluster that this one joined is gone.
    """
    limits = Limits(
        resources, num_workers, max_attempts, deadline_s, progress_every_s, max_losses_in_a_row, autoscale
    )
    pool = _Pool(spec, shards, make_actor or (lambda: start_worker(spec, resources)), limits)
    try:
        yield from pool.events()
    except (NodeLost, ClusterLost):
        pool.stop(ask=False)
        raise
    finally:
        pool.stop()


class _Pool:
    def __init__(
        self,
        spec: RunSpec,
        shards: Iterable[int] | ShardFeed,
        make_actor: Callable[[], Worker],
        limits: Limits,
    ) -> None:
        self._store = open_store(spec.root)
        self._feed = shards if isinstance(shards, ShardFeed) else ShardFeed.of(shards)
        self._make_actor = make_actor
        self._limits = limits
        self._todo = Todo(self._feed)
        self._seats: list[Seat] = []
        self._doubts = Doubts()
        self._starts = StartRounds()
        self._own_node = str(ray.get_runtime_context().get_node_id())
        self._num_started = 0
        self._losses = 0
        self._room = 0
        self._first_polled = 0
        self._room_asked = self._room_seen = self._judged = self._told = 0.0
        self._done: Counter[str] = Counter()

    def events(self) -> Generator[PoolEvent]:
        """What happens, until every shard is done or given up; sums of progress in between and last."""
        while self._fill():
            check_own_node()
            yield from self._settle()
            yield from self._stop_late_ones()
            yield from self._judge()
            self._let_idle_ones_go()
            if time.monotonic() - self._told >= self._limits.progress_every_s:
                self._told = time.monotonic()
                yield self._progress()
        yield self._progress()  # the final sums

    def stop(self, *, ask: bool = True) -> None:
        """Kills the workers that still sit, without waiting; `ask` not where Ray is gone: it would hang."""
        for seat in self._seats if ask else ():
            ray.kill(seat.worker.actor)
        self._seats.clear()

    # Hand out work

    def _fill(self) -> bool:
        """Starts workers and hands out shards; False when there is nothing left to wait for."""
        target = self._target(self._ask_room())
        coming = sum(seat.info is None for seat in self._seats)
        free = [seat.number for seat in self._seats if seat.waiting is None]

        # One for each worker and no more: what waits here, no other driver takes
        self._todo.pull(len(free) + coming + max(0, target - len(self._seats)), free)
        for seat in self._seats:
            if seat.waiting is None and self._todo:
                self._hand_out(seat, self._todo.take(seat.number))
        for _ in range(min(target - len(self._seats), len(self._todo) - coming)):
            worker = self._make_actor()
            self._seats.append(Seat(self._num_started, worker, worker.ready, time.monotonic()))
            self._num_started += 1
        in_work = self._doubts.hold_shards or any(seat.history for seat in self._seats)
        return bool(self._todo) or in_work or not self._feed.ended

    def _target(self, room: int) -> int:
        """How many workers there should be, those included that wait for nodes to come."""
        wanted = self._limits.num_workers
        return min(wanted, room + MAX_QUEUED) if self._limits.autoscale and wanted is not None else room

    def _hand_out(self, seat: Seat, history: History) -> None:
        seat.history, seat.task = history, self._todo.task_of(history, seat.number)
        seat.since = seat.moved = time.monotonic()
        seat.progress, seat.poll = ShardProgress(), None
        seat.waiting = seat.worker.actor.run.remote(seat.task)

    def _let_idle_ones_go(self) -> None:
        """Gives back the resources of workers that nothing is left for: others, or fewer nodes, want them."""
        now = time.monotonic()
        for seat in list(self._seats):
            if seat.history is not None or self._todo:
                seat.idle_since = now
            elif now - seat.idle_since > IDLE_S:
                self._seats.remove(seat)
                ray.kill(seat.worker.actor)

    def _ask_room(self) -> int:
        """How many workers may live now: as many as asked for, as far as the live nodes have room."""
        now = time.monotonic()
        if now - self._room_asked < 1.0 and self._room_asked:
            return self._room
        self._room_asked = now
        check_own_node()
        resources = self._limits.resources
        room = room_for(resources)
        self._room_seen = now if room or not self._room_seen else self._room_seen
        patience_s = NODES_DEADLINE_S if self._limits.autoscale else ROOM_DEADLINE_S * bool(self._num_started)
        if room == 0 and now - self._room_seen >= patience_s:
            raise RunStopped(
                f"no live node has room for a worker with {resources.num_cpus:g} CPUs and "
                f"{resources.num_gpus:g} GPUs: give workers less, or add nodes"
            )
        wanted = self._limits.num_workers
        self._room = room if wanted is None else min(room, wanted)
        return self._room

    # Take in what came of it

    def _settle(self) -> Iterator[PoolEvent]:
        """Waits a moment for any worker, then sees to all that have something to say."""
        waiting = {seat.waiting: seat for seat in self._seats if seat.waiting is not None}
        if not waiting:
            return time.sleep(0.1)

        # One that is done, and all that are done with it
        refs = list(waiting)
        finished, _ = ray.wait(refs, num_returns=1, timeout=min(0.5, self._limits.progress_every_s))
        if finished and len(refs) > 1:
            finished, _ = ray.wait(refs, num_returns=len(refs), timeout=0)

        # A result, an error of ours, or a death
        for ref in finished:
            seat = waiting[ref]
            try:
                result = ray.get(ref)
            except RayTaskError as error:
                yield from self._raised(seat, error)
            except RayError as error:
                preempted = isinstance(error, RayActorError) and error.preempted
                reason = last_words(error)
                yield from self._lost(seat, reason, node_lost=preempted)
                if raised_at_start(error) and self._starts.failed(reason, seat.began):
                    raise RunStopped(start_advice(reason)) from error
            else:
                seat.waiting = None
                if isinstance(result, WorkerInfo):
                    seat.info = result
                    self._starts.ready()
                else:
                    yield self._finished(seat, result)

    def _finished(self, seat: Seat, report: ShardReport) -> ShardDone:
        history = seat.held
        seat.history = seat.task = None
        self._losses = 0
        self._done.update(
            shards=1,
            images=report.num_annotated,
            masks=report.num_masks,
            rejects=sum(report.rejects.values()),
        )
        return ShardDone(report=report, attempts=history.attempts)

    def _raised(self, seat: Seat, error: RayTaskError) -> Iterator[PoolEvent]:
        """The worker lives and has said what is wrong."""
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if seat.history is None:
            raise RunStopped(f"a worker could not start: {cause}") from cause
        if not isinstance(cause, RETRIED):
            notes = "".join(f", {note}" for note in getattr(cause, "__notes__", ()))
            raise RunStopped(f"{type(cause).__name__}: {cause}{notes}", seat.history.shard) from error
        history = seat.history
        seat.waiting = seat.history = seat.task = None
        history.counted += 1
        yield from self._again_or_failed(history, f"{type(cause).__name__}: {cause}")

    def _lost(
        self, seat: Seat, reason: str, *, sent_away: bool = False, node_lost: bool = False
    ) -> Iterator[PoolEvent]:
        """The worker is gone, or is sent away."""
        check_own_node()
        self._seats.remove(seat)
        ray.kill(seat.worker.actor)
        node_lost = node_lost or (seat.info is not None and seat.info.node_id not in live_nodes())
        self._losses += 1

        # Its shard: tried again, or held against it
        history, task = seat.history, seat.task
        shard = history.shard if history else None
        yield WorkerLost(worker=seat.number, shard=shard, reason=reason, node_lost=node_lost)
        if history is not None and task is not None:
            if node_lost:
                self._todo.append(history)
            else:
                doubtful = not (sent_away or seat.info is None or seat.info.node_id == self._own_node)
                yield from self._died(
                    history, task, reason, seat.info.node_id if doubtful and seat.info else None
                )

        # More than bad luck
        allowed = self._limits.max_losses_in_a_row
        if self._losses > (8 + 4 * max(1, self._room) if allowed is None else allowed):
            raise RunStopped(
                f"{self._losses} workers in a row were lost, nothing done; the last: {reason}", shard
            )

    def _died(
        self, history: History, task: ShardTask, reason: str, doubtful_node: str | None
    ) -> Iterator[PoolEvent]:
        """Holds a death against the image it names, or else against the shard; for good, or in doubt."""
        named = last_announced(self._store, task.shard, task.attempt) if task.one_by_one else None
        if not history.died(named):
            named = None
        given_up = history.counted >= self._limits.max_attempts
        blamed = named is not None and history.is_blamed(named)
        if blamed and named is not None:
            self._losses = 0
            log.warning("image %s of shard %d kills workers: left out", named.key, history.shard)
        if doubtful_node is not None:
            waits = given_up or blamed
            self._doubts.add(Doubt(history, doubtful_node, named, reason, waits))
            if not waits:
                self._todo.append(history)
        else:
            yield from self._again_or_failed(history, reason)

    def _judge(self) -> Iterator[PoolEvent]:
        """Takes back what was counted where a node has turned out lost."""
        if not self._doubts or time.monotonic() - self._judged < JUDGE_EVERY_S:
            return
        self._judged = time.monotonic()
        for doubt in self._doubts.settle(live_nodes()):
            yield from self._again_or_failed(doubt.history, doubt.reason)

    def _again_or_failed(self, history: History, reason: str) -> Iterator[PoolEvent]:
        if history.counted < self._limits.max_attempts:
            self._todo.append(history)
        else:
            self._feed.give_up(history.shard)
            yield ShardFailed(shard=history.shard, attempts=history.attempts, reason=reason)

    # Look after those in work

    def _stop_late_ones(self) -> Iterator[PoolEvent]:
        now = time.monotonic()
        for place, seat in enumerate(list(self._seats)):
            if seat.info is None and place >= self._room:
                seat.since = now  # it waits for a node, not for its models
            elif seat.info is None and now - seat.since > START_DEADLINE_S:
                yield from self._lost(seat, f"not ready after {START_DEADLINE_S:.0f} s", sent_away=True)
            elif seat.task is not None and self._limits.deadline_s is not None:
                since = seat.moved if seat.task.one_by_one else seat.since
                if now - since > self._limits.deadline_s:
                    reason = f"passed the deadline of {self._limits.deadline_s:g} s"
                    yield from self._lost(seat, reason, sent_away=True)

    def _progress(self) -> Progress:
        in_work = [seat for seat in self._seats if seat.task is not None]
        for seat in islice(
            cycle(in_work), self._first_polled, self._first_polled + min(MAX_POLLS, len(in_work))
        ):
            self._poll(seat)
        self._first_polled = (self._first_polled + MAX_POLLS) % max(1, len(in_work))
        return Progress(
            images_done=self._done["images"] + sum(seat.progress.images_done for seat in in_work),
            masks_done=self._done["masks"] + sum(seat.progress.masks_done for seat in in_work),
            num_rejects=self._done["rejects"] + sum(seat.progress.num_rejects for seat in in_work),
            shards_done=self._done["shards"],
            shards_in_work=tuple(sorted(seat.held.shard for seat in in_work)),
            workers_ready=sum(seat.info is not None for seat in self._seats),
            workers_starting=sum(seat.info is None for seat in self._seats),
            gpu_bytes={seat.number: seat.progress.gpu_bytes for seat in in_work},
        )

    def _poll(self, seat: Seat) -> None:
        """Takes the answer to the last question, if it is there, and asks again."""
        if seat.poll is not None:
            answered, _ = ray.wait([seat.poll], timeout=0)
            if not answered:
                return
            try:
                progress: ShardProgress = ray.get(seat.poll)
            except RayError:
                return  # its death comes out where its shard is waited for
            if seat.task is not None and progress.attempt == seat.task.attempt and progress != seat.progress:
                seat.progress, seat.moved = progress, time.monotonic()
        seat.poll = seat.worker.actor.progress.remote()
