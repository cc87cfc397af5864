"""Commands beside a running job: what each is given, and what must be true of it in the end.

A command may be refused by an error of ours (another writer is at work, nothing is published yet): it is
counted, and the dataset must be none the worse. What was asked to be forgotten is forgotten in the end; an
import is of pictures that the first round has.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskmill.storage.errors import StorageError
from maskmill.storage.plan.plan import image_key, load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.workers.drill.drivers import Drivers
from maskmill.workers.drill.inputs import HEIGHT, WIDTH
from maskmill.workers.drill.job import DriverJob
from maskmill.workers.drill.upsets import names

MOST_AT_ONCE = 3
MOST_FORGOTTEN = 12
NUM_IMPORTED = 6


class Beside:
    """The commands of one drill.

    Args:
        command: starts a driver or a command; see drivers.py.
        folder: for what they write.
        store: the dataset.
        rng: chooses keys.
    """

    def __init__(self, command: Sequence[str], folder: Path, store: ObjectStore, rng: random.Random) -> None:
        self._drivers = Drivers(command, folder / "commands")
        self._folder, self._store, self._rng = folder, store, rng
        self._annotations = folder / "given.json"
        self._num_started = 0
        self.forgotten: set[str] = set()

    def prepare(self, part: Path) -> None:
        """Writes the annotations that imports are given, of a part's first pictures."""
        if self._annotations.exists():
            return
        square = [4, 4, 24, 4, 24, 20, 4, 20]
        files = sorted(part.glob("files/*.jpg"))[:NUM_IMPORTED]
        entries = [
            {"id": i, "file_name": f"{part.name}/files/{path.name}", "width": WIDTH, "height": HEIGHT}
            for i, path in enumerate(files, 1)
        ]
        rows = [
            {"id": i, "image_id": i, "category_id": 1, "segmentation": [square], "iscrowd": 0}
            for i in range(1, len(files) + 1)
        ]
        given = {"images": entries, "annotations": rows, "categories": [{"id": 1, "name": "block"}]}
        self._annotations.write_text(json.dumps(given))

    def start(self, kind: str, job: DriverJob, environment: Mapping[str, str]) -> bool:
        """One more command. False where there is nothing to do it on, or others enough are at work."""
        if self._drivers.num_live() >= MOST_AT_ONCE:
            return False
        try:
            num_images = load_plans(self._store).num_images
        except StorageError:
            return False
        if not num_images:
            return False
        self._drivers.start(
            dataclasses.replace(job, command=kind, words=self._words(kind, num_images)), environment
        )
        self._num_started += 1
        return True

    def _words(self, kind: str, num_images: int) -> list[str]:
        if kind == names.FORGET:
            if len(self.forgotten) < MOST_FORGOTTEN:
                self.forgotten.add(image_key(self._rng.randint(1, num_images)))
            return sorted(self.forgotten)[-2:]
        if kind == names.IMPORT:
            return [str(self._annotations)]
        if kind == names.EXPORT:
            return [str(self._folder / "exports" / f"{self._num_started:04d}")]
        return []

    def forget_all(self, job: DriverJob, environment: Mapping[str, str]) -> None:
        """Starts the last word on what was asked to be forgotten."""
        self._drivers.start(
            dataclasses.replace(job, command=names.FORGET, words=sorted(self.forgotten)), environment
        )

    def num_live(self) -> int:
        """Commands that run now."""
        return self._drivers.num_live()

    def take_ends(self) -> list[str]:
        """How those ended that have since the last call."""
        return self._drivers.take_ends()

    def kill_all(self) -> None:
        """Leaves none behind."""
        self._drivers.kill_all()

    @property
    def ends(self) -> Counter[str]:
        """How all ended."""
        return self._drivers.ends

    @property
    def crashes(self) -> list[str]:
        """What those wrote that ended by a bug."""
        return self._drivers.crashes
