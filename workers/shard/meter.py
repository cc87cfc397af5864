"""Counts and clocks of a shard in work: written by its threads, read by whoever asks for progress."""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from maskmill.workers.run.spec import ShardProgress, ShardTask


class Meter:
    """One worker's counts, safe between threads; `begin` starts it anew for each shard."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._progress = ShardProgress()
        self._seconds: dict[str, float] = {}
        self._remarks: Counter[str] = Counter()

    def begin(self, task: ShardTask) -> None:
        """Forgets the last shard."""
        with self._lock:
            self._progress = ShardProgress(shard=task.shard, attempt=task.attempt)
            self._seconds = {}
            self._remarks = Counter()

    def end(self) -> None:
        """No shard is in work."""
        with self._lock:
            self._progress = ShardProgress()

    def at(self, key: str) -> None:
        """Names the image that is in the model's hands."""
        self._change(key=key)

    def restart(self) -> None:
        """Counts images from zero again: what was done had to be dropped."""
        self._change(images_done=0, masks_done=0, num_rejects=0)

    def count(self, *, images: int = 0, masks: int = 0, rejects: int = 0) -> None:
        """Adds to the counts."""
        with self._lock:
            now = self._progress
            self._progress = _replace(
                now,
                images_done=now.images_done + images,
                masks_done=now.masks_done + masks,
                num_rejects=now.num_rejects + rejects,
            )

    def remark(self, what: str) -> None:
        """Something worth a look is true of one more image."""
        with self._lock:
            self._remarks[what] += 1

    def remarks(self) -> dict[str, int]:
        """Images by what is true of them, by name."""
        with self._lock:
            return dict(sorted(self._remarks.items()))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a step's seconds."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add_seconds({name: time.perf_counter() - began})

    def add_seconds(self, seconds_by_step: Mapping[str, float]) -> None:
        """Adds to the steps' seconds."""
        with self._lock:
            for name, seconds in seconds_by_step.items():
                self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def seconds_by_step(self) -> dict[str, float]:
        """Sums over threads, rounded to a millisecond, by name."""
        with self._lock:
            return {name: round(seconds, 3) for name, seconds in sorted(self._seconds.items())}

    def progress(self) -> ShardProgress:
        """Where the shard stands now."""
        with self._lock:
            return _replace(self._progress, gpu_bytes=_gpu_bytes())

    def _change(self, **values: object) -> None:
        with self._lock:
            self._progress = _replace(self._progress, **values)


def _gpu_bytes() -> int:
    """What torch holds of the GPUs' memory in this process; never imports torch or wakes a GPU."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return sum(torch.cuda.memory_reserved(device) for device in range(torch.cuda.device_count()))


def _replace(progress: ShardProgress, **values: object) -> ShardProgress:
    return dataclasses.replace(progress, **values)  # type: ignore[arg-type]
