"""What the device engine costs the host, with the arithmetic taken out.

    OMP_NUM_THREADS=1 python -m benchmarks.host_time --rounds 15

Eight pictures of 1500x2250, 1,024 points each, 100 survivors of 300 columns, from the resized picture to
the annotations; every step of the device gives what was prepared. What is left of the device's own small
operations (sorting, gathering) runs on the CPU and is counted too, so a GPU's host has less to do.
Milliseconds an image: the process's CPU time and wall time, median and least.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from tests.pipeline.conftest import build_tiny_sam
from tests.pipeline.gpu.stand_ins import ArithmeticTakenOut, Calls


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the rounds and prints both times."""
    parser = argparse.ArgumentParser(prog="benchmarks.host_time")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    taken_out = ArithmeticTakenOut(build_tiny_sam)
    taken_out()
    images = len(taken_out.images)
    cpu_ms, wall_ms = [], []
    for _ in range(options.rounds):
        start_cpu_s, start_s = time.process_time(), time.perf_counter()
        taken_out()
        cpu_ms.append(1e3 * (time.process_time() - start_cpu_s) / images)
        wall_ms.append(1e3 * (time.perf_counter() - start_s) / images)
    with Calls() as calls:
        taken_out()
    for name, found in (("CPU", cpu_ms), ("wall", wall_ms)):
        print(f"{name:5} {statistics.median(found):6.2f} ms an image, at least {min(found):.2f}")
    print(f"calls {calls.made / images:6.0f} of Python functions an image")


if __name__ == "__main__":
    main()
