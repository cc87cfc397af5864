"""`ray://` beside a node of the driver's own that does no work: how long a call takes, and a lost connection.

    sudo .venv/bin/python -m benchmarks.joining [--calls 200] [--outages 8,45] [--ways ray://,node]

A head, a worker and a driver, each in a network namespace of its own (root, iproute2). The driver calls an
actor that answers at once, one call after another, then many at a time; then its wire is out for so many
seconds while a call of the same length plus 5 s runs. It says what each way made of it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from tests.flows.services.ray.namespaces import Machine, machines, unplugged

RAY = [sys.executable, "-m", "ray.scripts.scripts", "start"]
SMALL = ["--block", "--object-store-memory=83886080"]

DRIVER = """
import json, statistics, sys, time
import ray
address, calls, away_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
began = time.monotonic()
for tries_left in (2, 1, 0):
    try:
        ray.init(address, logging_level="ERROR", log_to_driver=False)
        break
    except ConnectionError:  # Ray gives its client 30 s, which a busy machine may need
        if not tries_left:
            raise
joined = time.monotonic() - began

class Answers:
    def answer(self, seconds):
        time.sleep(seconds)
        return seconds

actor = ray.remote(num_cpus=1, max_restarts=0)(Answers).remote()
ray.get(actor.answer.remote(0))
times = []
for _ in range(calls):
    began = time.monotonic()
    ray.get(actor.answer.remote(0))
    times.append(time.monotonic() - began)
began = time.monotonic()
ray.get([actor.answer.remote(0) for _ in range(calls)])
many = time.monotonic() - began
print(json.dumps({"join_s": joined, "call_ms": statistics.median(times) * 1e3,
                  "p95_ms": sorted(times)[int(0.95 * calls)] * 1e3, "calls_s": calls / many}), flush=True)
if away_s:
    print("calling", flush=True)
    began = time.monotonic()
    try:
        said = ray.get(actor.answer.remote(away_s + 5))
    except Exception as error:
        said = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:100]}"
    print(json.dumps({"said": said, "after_s": round(time.monotonic() - began, 1)}), flush=True)
"""


def main() -> None:
    """Prints a line a way and outage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--outages", default="8,45", help="seconds, commas between")
    parser.add_argument("--ways", default="ray://,node", help="commas between")
    asked = parser.parse_args()
    for away_s in [float(text) for text in asked.outages.split(",")]:
        for way in asked.ways.split(","):
            with tempfile.TemporaryDirectory(prefix="joining-") as folder:
                told = _tried(way, away_s, asked.calls, Path(folder))
            print(
                way, f"wire out {away_s:g} s", json.dumps(told), f"load {os.getloadavg()[0]:.1f}", flush=True
            )


def _tried(way: str, away_s: float, calls: int, folder: Path) -> dict[str, object]:
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**os.environ, **own, "OMP_NUM_THREADS": "1"}
    with machines(3) as (head, worker, driver), ExitStack() as running:

        def start(machine: Machine, *words: str) -> None:
            """A node of Ray's there."""
            command = [*RAY, *words, *SMALL, f"--node-ip-address={machine.address}"]
            log = folder / f"{machine.name}.log"
            running.enter_context(machine.running(command, environment=environment, cwd=folder, log=log))

        start(head, "--head", "--port=6379", "--num-cpus=0", "--include-dashboard=false")
        _until_answers(driver, head)
        start(worker, f"--address={head.address}:6379", "--num-cpus=1")
        if way == "node":
            return _with_own_node(driver, head, away_s, calls, folder, environment)
        address = f"ray://{head.address}:10001"
        return _told(
            driver,
            [sys.executable, "-c", DRIVER, address, str(calls), str(away_s)],
            away_s,
            folder,
            environment,
        )


def _with_own_node(
    driver: Machine, head: Machine, away_s: float, calls: int, folder: Path, environment: dict[str, str]
) -> dict[str, object]:
    """Node and driver in one place: they speak by files below /tmp/ray."""
    node = " ".join(
        [
            *RAY,
            f"--address={head.address}:6379",
            "--num-cpus=0",
            *SMALL,
            f"--node-ip-address={driver.address}",
        ]
    )
    (folder / "driver.py").write_text(DRIVER)
    driving = f"{sys.executable} driver.py {head.address}:6379 {calls} {away_s}"
    until = 'until grep -q "Ray runtime started" node.log; do sleep 0.5; done'
    tries = f"for try in 1 2 3; do {node}; done"  # a busy machine may miss Ray's time for a start
    words = f"({tries}) > node.log 2>&1 & {until}; exec {driving}"
    return _told(driver, ["sh", "-c", words], away_s, folder, environment)


def _told(
    driver: Machine, words: list[str], away_s: float, folder: Path, environment: dict[str, str]
) -> dict[str, object]:
    """What the driver said; its wire is out once it calls."""
    process = subprocess.Popen(
        driver.command(*words), env=environment, cwd=folder, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, object] = {}
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                found |= json.loads(line)
            elif line.startswith("calling"):
                time.sleep(1)
                with unplugged(driver):
                    time.sleep(away_s)
        found["rc"] = process.wait(240)
    finally:
        process.kill()
        process.wait()
    return found


def _until_answers(driver: Machine, head: Machine) -> None:
    code = f"import socket; socket.create_connection(({head.address!r}, 10001), 2)"
    words = ["ip", "netns", "exec", driver.name, sys.executable, "-c", code]
    deadline = time.monotonic() + 180
    while subprocess.run(words, capture_output=True, check=False).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError("the head did not start")
        time.sleep(1)


if __name__ == "__main__":
    main()
