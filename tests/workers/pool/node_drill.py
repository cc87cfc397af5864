"""A node is lost in mid-run, and later another joins.

`python -m tests.workers.pool.node_drill SPEC NUM_SHARDS` prints JSON about it."""

from __future__ import annotations

import functools
import json
import pickle
import sys
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from maskmill.workers.pool.actors import start_worker
from maskmill.workers.pool.pool import run_pool
from maskmill.workers.run.events import Progress, ShardDone, ShardFailed, WorkerLost
from maskmill.workers.run.spec import Resources, RunSpec
from tests import fakes


def main() -> None:
    """Kills a node once shards are in work on both; adds one when half of them are done."""
    spec: RunSpec = pickle.loads(Path(sys.argv[1]).read_bytes())
    num_shards = int(sys.argv[2])
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    doomed = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    ray.cloudpickle.register_pickle_by_value(fakes)
    resources = Resources(num_cpus=1)
    build = functools.partial(fakes.build_fake_stages, masks=fakes.FakeMasks(seconds=0.3))
    seen: dict[str, list[object]] = {"done": [], "failed": [], "lost": [], "ready": [], "nodes": []}
    for event in run_pool(
        spec,
        range(num_shards),
        resources=resources,
        max_attempts=1,  # a turn that counted against its shard would end it
        make_actor=lambda: start_worker(spec, resources, build),
    ):
        if isinstance(event, Progress):
            seen["ready"].append(event.workers_ready)
            if doomed is not None and event.workers_ready == 2:
                cluster.remove_node(doomed, allow_graceful=False)
                doomed = None
            elif len(seen["done"]) >= num_shards // 2 and len(seen["nodes"]) == 0:
                seen["nodes"].append(str(cluster.add_node(num_cpus=1).unique_id))
        elif isinstance(event, ShardDone):
            seen["done"].append([event.report.shard, event.attempts])
        elif isinstance(event, ShardFailed):
            seen["failed"].append(event.shard)
        elif isinstance(event, WorkerLost):
            seen["lost"].append([event.shard, event.node_lost])
    print(json.dumps(seen))  # noqa: T201
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
