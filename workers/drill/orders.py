"""Faults given out as files in a folder; the operation that meets one takes it, by a rename.

However many processes look, each order is carried out once, and is counted even if its taker dies of it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Order:
    """One fault.

    Attributes:
        number: of the fault; what a fault may do in several ways is chosen by it.
        kind: of the fault.
    """

    number: int
    kind: str


@dataclass(frozen=True)
class Orders:
    """The folder, picklable; `open/` has those given and not yet taken."""

    folder: Path

    def give(self, order: Order) -> None:
        """Lays an order out."""
        for name in ("open", "taken"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "open" / f"{order.number:06d}.{order.kind}").touch()

    def take(self, kinds: Set[str]) -> Order | None:
        """An order of one of these kinds, if there is any; it is the caller's to carry out now."""
        for order in self._read("open"):
            if order.kind in kinds:
                name = f"{order.number:06d}.{order.kind}"
                with suppress(FileNotFoundError):  # another process was quicker
                    os.rename(self.folder / "open" / name, self.folder / "taken" / name)  # noqa: PTH104
                    return order
        return None

    def num_open(self) -> int:
        """Orders that nobody has met yet."""
        return len(self._read("open"))

    def taken(self) -> Counter[str]:
        """How many were carried out, by kind."""
        return Counter(order.kind for order in self._read("taken"))

    def withdraw(self) -> list[Order]:
        """Takes back those that nobody has met."""
        withdrawn = []
        for order in self._read("open"):
            with suppress(FileNotFoundError):
                (self.folder / "open" / f"{order.number:06d}.{order.kind}").unlink()
                withdrawn.append(order)
        return withdrawn

    def _read(self, name: str) -> list[Order]:
        try:
            found = sorted(path.name for path in (self.folder / name).iterdir())
        except FileNotFoundError:
            return []
        return [Order(int(number), kind) for number, _, kind in (one.partition(".") for one in found)]
