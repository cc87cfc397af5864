"""What people made of pictures, as the page asks it: the saves in force, and who works on what.

Which pictures have saves is asked of the store every few seconds at most; a save itself never changes and is
read once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING

from maskmill.storage.dataset.saves import Standing, saved_numbers, standing_of
from maskmill.storage.drivers.claims import claim, claims, release
from maskmill.storage.drivers.store_time import store_clock
from maskmill.storage.errors import AccessDenied, OutOfSpace, StoreUnavailable

if TYPE_CHECKING:
    from maskmill.storage.dataset.saves import Save
    from maskmill.storage.stores.base import ObjectStore

LISTED_EVERY_S = 2.0
NOT_WRITTEN = (AccessDenied, OutOfSpace, StoreUnavailable)
"""Of these a reviewer hears when something of theirs is to be kept: hints go without."""


class People:
    """The saves and claims of a dataset. Safe to share between threads.

    Args:
        store: the dataset.
        now_s: seconds that only rise.
    """

    def __init__(self, store: ObjectStore, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._store, self._now_s = store, now_s
        self._lock = threading.Lock()
        self._listed_s = float("-inf")
        self._numbers: Mapping[str, tuple[int, ...]] = {}
        self._clock: Callable[[], float] | None = None
        self._standing = lru_cache(maxsize=4096)(lambda key, numbers: standing_of(store, key))

    def numbers(self, *, fresh: bool = False) -> Mapping[str, tuple[int, ...]]:
        """The numbers of the saves of each picture that has any; `fresh` asks the store now."""
        with self._lock:
            if fresh or self._now_s() - self._listed_s > LISTED_EVERY_S:
                self._numbers = saved_numbers(self._store)
                self._listed_s = self._now_s()
            return self._numbers

    def standing(self, key: str) -> Standing:
        """How the saves of a picture stand. Raises DamagedObject."""
        numbers = self.numbers().get(key)
        return self._standing(key, numbers) if numbers else Standing()

    def newest(self, key: str) -> Save | None:
        """The save in force; None where nobody saved. Raises DamagedObject."""
        return self.standing(key).in_force

    def makers(self, keys: Sequence[str]) -> dict[str, str]:
        """Those of the keys that have a save -> "person" or "oracle". Raises DamagedObject."""
        return {key: save.made_by for key, save in self._in_force(keys)}

    def claim(self, key: str, who: str) -> None:
        """Says that somebody has a picture open; a hint, so a store that takes no writes is no error."""
        with suppress(*NOT_WRITTEN):
            claim(self._store, key, who)

    def release(self, key: str, who: str) -> None:
        """Takes that back."""
        with suppress(*NOT_WRITTEN):
            release(self._store, key, who)

    def others(self, key: str, who: str) -> list[dict[str, object]]:
        """Who else has a picture open: name, and seconds since it was said."""
        found = self.claimed().get(key, ())
        return [{"who": name, "age_s": round(age_s)} for name, age_s in found if name != who]

    def claimed(self) -> dict[str, list[tuple[str, float]]]:
        """Who has which pictures open, by key; nobody where the store's time, a write, cannot be asked."""
        try:
            with self._lock:
                if self._clock is None:
                    self._clock = store_clock(self._store)
                clock = self._clock
        except NOT_WRITTEN:
            return {}
        found = claims(self._store, clock=clock)
        return {key: [(one.who, one.age_s) for one in some] for key, some in found.items()}

    def _in_force(self, keys: Sequence[str]) -> Iterator[tuple[str, Save]]:
        numbers = self.numbers()
        for key in keys:
            if key in numbers and (save := self.newest(key)) is not None:
                yield key, save
