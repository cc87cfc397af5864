"""A cluster that starts without a worker node.

`python -m tests.workers.pool.autoscaling_drill SPEC NUM_SHARDS` prints JSON about how Ray's autoscaler
brought nodes for the pool and took them away. The nodes are raylets on this machine, by Ray's own provider
for tests.
"""

from __future__ import annotations

import functools
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import ray

from maskmill.workers.pool.actors import Worker, start_worker
from maskmill.workers.pool.pool import run_pool
from maskmill.workers.run.events import Progress, ShardDone, ShardFailed, WorkerLost
from maskmill.workers.run.nodes import room_for
from maskmill.workers.run.spec import Resources, RunSpec
from tests import fakes
from tests.ports import free_port

ONE_CPU = Resources(num_cpus=1)
NUM_NODES = 3
PROVIDER = {
    "type": "fake_multinode",
    "launch_multiple": True,
    "use_node_id_as_ip": True,
    "disable_node_updaters": True,
    "disable_launch_config_check": True,
}
CONFIG = {
    "cluster_name": "drill",
    "max_workers": NUM_NODES,
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "node": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": NUM_NODES},
    },
    "head_node_type": "ray.head.default",
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 0.05,
    "auth": {},
    **{f"{name}_commands": [] for name in ("initialization", "setup", "head_setup", "worker_setup")},
    **{f"{name}_start_ray_commands": [] for name in ("head", "worker")},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
}


def main() -> None:
    """Runs the pool, then waits for the nodes to go again."""
    spec: RunSpec = pickle.loads(Path(sys.argv[1]).read_bytes())
    with autoscaling_head() as address:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        ray.cloudpickle.register_pickle_by_value(fakes)
        seen: dict[str, Any] = {"before": room_for(ONE_CPU), "asked": 0, "done": [], "wrong": [], "most": 0}
        build = functools.partial(fakes.build_fake_stages, masks=fakes.FakeMasks(seconds=0.3))

        def make_actor() -> Worker:
            seen["asked"] += room_for(ONE_CPU) == 0
            return start_worker(spec, ONE_CPU, build)

        for event in run_pool(
            spec,
            range(int(sys.argv[2])),
            resources=ONE_CPU,
            num_workers=NUM_NODES,
            make_actor=make_actor,
            autoscale=True,
        ):
            if isinstance(event, Progress):
                seen["most"] = max(seen["most"], event.workers_ready)
            elif isinstance(event, ShardDone):
                seen["done"].append(event.report.shard)
            elif isinstance(event, ShardFailed | WorkerLost):
                seen["wrong"].append(str(event))
        end = time.monotonic() + 60
        while room_for(ONE_CPU) and time.monotonic() < end:
            time.sleep(1)
        seen["after"] = room_for(ONE_CPU)
        print(json.dumps(seen))  # noqa: T201
        ray.shutdown()


@contextmanager
def autoscaling_head() -> Iterator[str]:
    """A head without CPUs and an autoscaler that adds nodes of one; all of it ends with the block."""
    address = f"127.0.0.1:{free_port()}"
    with tempfile.NamedTemporaryFile("w", suffix=".json") as config:
        json.dump(CONFIG | {"provider": PROVIDER | {"gcs_address": address}}, config)
        config.flush()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += [f"--port={address.rpartition(':')[2]}", f"--autoscaling-config={config.name}"]
        command += ["--num-cpus=0", "--include-dashboard=false", "--object-store-memory=83886080"]
        environment = {**os.environ, "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_FAKE_CLUSTER": "1"}
        head = subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _await_head(address, head)
            yield address
        finally:
            for pid in [*_descendants(head.pid), head.pid]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            head.wait()


def _await_head(address: str, head: subprocess.Popen[bytes]) -> None:
    host, _, port = address.rpartition(":")
    end = time.monotonic() + 120
    while time.monotonic() < end and head.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                time.sleep(3)  # the raylet comes after the port
                return
        time.sleep(0.5)
    raise RuntimeError("the head did not start")


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):
            for child in task.read_text().split():
                found += [*_descendants(int(child)), int(child)]
    return found


if __name__ == "__main__":
    main()
