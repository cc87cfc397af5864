"""A driver whose Ray loses a process: `python -m tests.flows.runs.lost_node PART TIMES FOLDER`.

A thread kills the PART (raylet, gcs_server, or an agent of the raylet's, by its title) once the first shard
is committed, TIMES times: processes that this driver's own Ray started, by their pids. With the PART "head"
the driver joins a cluster that is started for it, and that cluster's control service is killed. Prints JSON.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskmill.flows.config import load_config
from maskmill.flows.report.report import watching
from maskmill.flows.runs.steps.annotating import annotate_shards
from maskmill.flows.runs.steps.planning import pending_shards, plan_images
from maskmill.flows.services.ray import cluster
from maskmill.workers.pool import own_node
from maskmill.workers.run.events import RunStopped
from tests import fakes
from tests.workers.published import make_spec

SHARDS = 6
BE_HEAD = "be-head"


class Notes:
    """A watcher that keeps what was noted."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def main() -> None:
    """Annotates, losing the part meanwhile."""
    part, times, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    fakes.write_pictures(folder / "in", 2 * SHARDS)
    spec = make_spec(folder / "data")
    config = load_config(sets=["run.shard_size=2", "run.workers=1"])
    plan_images(spec.root, [str(folder / "in")], config, None)

    cluster.loopback_environment()
    head, address = start_head(folder) if part == "head" else (None, None)
    if address is not None:
        config = load_config(sets=["run.shard_size=2", "run.workers=1", f"run.ray_address={address}"])
        own_node.SILENT_S = 5.0  # 47 s pass in all with what users have
    import ray

    ray.cloudpickle.register_pickle_by_value(fakes)
    began: list[float] = []
    threading.Thread(
        target=kill_parts, args=(part, times, folder / "data", began, head and head.pid), daemon=True
    ).start()
    build = functools.partial(fakes.build_fake_stages, masks=fakes.FakeMasks(seconds=0.5))
    notes, error = Notes(), None
    with watching(notes):
        try:
            annotate_shards(spec, config, pending_shards(spec), build=build)
        except RunStopped as exc:
            error = str(exc)
        finally:
            if head is not None:
                head.kill()
    told = {"notes": notes.texts, "error": error, "left": len(pending_shards(spec)), "killed": len(began)}
    print(json.dumps({**told, "seconds": time.monotonic() - began[0] if began else None}))  # noqa: T201


def start_head(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """A cluster of one node that another process has started on this machine: the process and the address."""
    with (folder / "head.log").open("wb") as log:
        started = subprocess.Popen(
            [sys.executable, "-m", "tests.flows.runs.lost_node", BE_HEAD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    assert started.stdout is not None
    address = started.stdout.readline().strip()
    assert address, (folder / "head.log").read_text()
    return started, address


def be_head() -> None:
    """Ray on this machine, for another driver to join, until nobody listens any more."""
    cluster.connect(num_cpus=1)
    import ray

    print(ray.get_runtime_context().gcs_address, flush=True)  # noqa: T201
    sys.stdin.read()


def kill_parts(part: str, times: int, dataset: Path, began: list[float], head: int | None) -> None:
    """Kills the part each time that work has gone on since the last kill."""
    for number in range(times):
        seen = len(committed(dataset))
        while len(committed(dataset)) <= (seen if number else 0) or (pid := pid_of(part, head)) is None:
            time.sleep(0.05)
        began.append(time.monotonic())
        os.kill(pid, signal.SIGKILL)
        time.sleep(3)


def committed(dataset: Path) -> list[Path]:
    return list(dataset.glob("masks/*/commits/*.json"))


def pid_of(part: str, head: int | None) -> int | None:
    """Of a process of this driver's own Ray, of an agent below its raylet, or of the head's control service;
    None before there is one."""
    if head is not None:
        return next((pid for pid in below(head) if "gcs_server" in name_of(pid)), None)
    from ray._private import worker

    node: Any = worker._global_node
    if node is None or not node.live_processes():
        return None
    started = {kind: infos[0].process.pid for kind, infos in node.all_processes.items()}
    if part in started:
        return int(started[part])
    found = [pid for pid in below(started["raylet"]) if part in name_of(pid)]
    return found[0] if found else None


def below(parent: int) -> Iterator[int]:
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        if int(fields[1]) == parent:
            yield int(place.parent.name)


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")


if __name__ == "__main__":
    be_head() if sys.argv[1] == BE_HEAD else main()
