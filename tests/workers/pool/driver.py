"""A driver to be killed: `python -m tests.workers.pool.driver GCS_ADDRESS SPEC SHARDS MARKS`."""

from __future__ import annotations

import functools
import pickle
import sys
from pathlib import Path

from maskmill.flows.services.ray.cluster import connect
from maskmill.workers.pool.actors import start_worker
from maskmill.workers.pool.pool import run_pool
from maskmill.workers.run.spec import Resources, RunSpec
from tests import fakes


def main() -> None:
    """Runs the pool and leaves a file for each event."""
    address, spec_file, num_shards, marks = sys.argv[1:]
    connect(address)
    import ray

    ray.cloudpickle.register_pickle_by_value(fakes)
    spec: RunSpec = pickle.loads(Path(spec_file).read_bytes())
    resources = Resources(num_cpus=1)
    build = functools.partial(fakes.build_fake_stages, masks=fakes.FakeMasks(seconds=0.6, marks=marks))
    events = run_pool(
        spec,
        range(int(num_shards)),
        resources=resources,
        num_workers=2,
        make_actor=lambda: start_worker(spec, resources, build),
    )
    for number, event in enumerate(events):
        Path(marks, f"event-{number:05d}-{type(event).__name__}").touch()


if __name__ == "__main__":
    main()
