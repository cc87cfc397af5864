"""One driver of a drill, killed at any time and started again.

`python -m maskmill.flows.commands.operate.drill_driver JOB`

It takes the steps of `maskmill generate` (plan, pool, verify, publish) with a stand-in for the models and
without Prefect, which would take longer to start than the whole job. What happens is told in a file, a line
of JSON an event.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from maskmill.flows.commands.operate.drill_command import carry_out
from maskmill.flows.config import load_config
from maskmill.flows.runs.steps.holding import driving
from maskmill.flows.runs.steps.planning import pending_shards, plan_images
from maskmill.flows.runs.steps.publishing import publish_and_verify
from maskmill.flows.services.ray import cluster
from maskmill.storage.errors import StorageError
from maskmill.storage.stores.open import is_remote
from maskmill.workers.drill import disk
from maskmill.workers.drill.job import INCOMPLETE, STOPPED, DriverJob
from maskmill.workers.drill.orders import Orders
from maskmill.workers.drill.upsets import clocks
from maskmill.workers.run.events import RunStopped, ShardDone, ShardFailed, WorkerLost
from maskmill.workers.run.spec import Resources

if TYPE_CHECKING:
    from maskmill.workers.drill.stages import Build


def main() -> None:
    """Works all that is missing; exits with 0 when nothing is."""
    job = DriverJob(**json.loads(sys.argv[1]))
    try:
        if job.upset:
            clocks.install(Orders(Path(job.orders)))
        complete = carry_out(job) if job.command else drive(job)
    except (StorageError, RunStopped, cluster.ClusterError) as exc:
        sys.stderr.write(f"{type(exc).__name__}: {exc}\n")
        sys.exit(STOPPED)
    sys.exit(0 if complete else INCOMPLETE)


def drive(job: DriverJob) -> bool:
    """The steps of a run; True if the dataset is complete and sound.

    Raises:
        StorageError, RunStopped, ClusterError: the run cannot go on; start it again.
    """
    from maskmill.workers.drill.stages import Builder, drill_spec, leave_pandas_out

    leave_pandas_out()
    if not is_remote(job.dataset):
        disk.install(Orders(Path(job.orders)), job.dataset)
    config = load_config(sets=[f"run.shard_size={job.shard_size}"])
    spec = drill_spec(job.dataset)
    build: Build = Builder(job.seconds, Path(job.orders), job.upset)
    if job.build:
        build = pkgutil.resolve_name(job.build)(build)
    failed = False
    with driving(job.dataset), Path(job.events, f"{os.getpid()}.jsonl").open("a") as events:

        def tell(**event: object) -> None:
            """An event as a line of JSON, flushed: this process may be killed next."""
            events.write(json.dumps(event) + "\n")
            events.flush()

        plan_images(job.dataset, job.inputs, config, None)
        pending = pending_shards(spec)
        tell(kind="pending", shards=sorted(pending))
        if pending:
            with cluster.connected(job.address):
                from maskmill.workers.pool.actors import start_worker
                from maskmill.workers.pool.pool import run_pool

                resources = Resources(num_cpus=1)
                for event in run_pool(
                    spec,
                    pending,
                    resources=resources,
                    num_workers=job.workers,
                    deadline_s=job.deadline_s,
                    make_actor=lambda: start_worker(spec, resources, build),
                ):
                    failed |= isinstance(event, ShardFailed)
                    if isinstance(event, ShardDone):
                        tell(kind="done", shard=event.report.shard, attempts=event.attempts)
                    elif isinstance(event, ShardFailed | WorkerLost):
                        tell(kind=type(event).__name__, **dataclasses.asdict(event))
        published = publish_and_verify(spec, config)
    return not failed and published.check.ok


if __name__ == "__main__":
    main()
