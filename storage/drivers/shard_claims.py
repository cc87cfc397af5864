"""Claims on shards: which driver has one in hand. A hint with an age, no lock.

    claims/run-<digest of it>/000007.000.json      put-if-absent: who took shard 7
    claims/run-<digest of it>/000007.001.json      who took it over when that driver had died, and so on: the
                                                   highest number is in force

So two drivers on one dataset take different shards. Nothing else depends on it: a shard that both do all the
same is committed once, by put-if-absent. A claim is as alive as its driver's heartbeat (lease.py). It stays
where the shard was done, since whoever finds it then finds the commit too, and is taken back where the shard
was given up, for the other to try. Garbage collection removes old ones.

It does not know: which shards there are, and which are done (shard_feed.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping

from maskmill.storage.drivers.lease import DriverInfo, others
from maskmill.storage.drivers.one_writer import may_live
from maskmill.storage.errors import ObjectNotFound, StorageError
from maskmill.storage.json_text import load_object
from maskmill.storage.stores.base import ObjectStore

log = logging.getLogger(__name__)

FOLDER = "claims"
PLANNING = {"plan": ""}
"""As a run, whose shard 0 is the planning of new inputs: one driver does it, others work what it planned."""


class ShardClaims:
    """A driver's claims on the shards of a run.

    Args:
        store: the dataset.
        run: what is made, as fingerprints by column: drivers that make other columns don't meet.
        driver_id: of the driver's heartbeat.
    """

    def __init__(self, store: ObjectStore, run: Mapping[str, str], driver_id: str) -> None:
        text = json.dumps(dict(run), sort_keys=True)
        self._store, self._own_id = store, driver_id
        # not the digest alone: a folder of folders named by 16 digits is a column
        self._folder = f"{FOLDER}/run-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self._holders: dict[str, str] = {}
        self._data = (json.dumps({"driver_id": driver_id}) + "\n").encode()

    def take(self, shard: int) -> bool:
        """Claims a shard, in one call to the store; False where another driver had it before.

        A claim that cannot be written is as good as one: the shard may be done twice.
        """
        try:
            return self._store.put_if_absent(self._name(shard, 0), self._data)
        except StorageError as exc:
            log.warning("shard %d is worked without a claim: %s", shard, exc)
            return True

    def living(self) -> dict[str, DriverInfo]:
        """Other drivers that are alive now, by id. Raises StorageError."""
        alive = others(self._store, own_id=self._own_id)
        return {driver.driver_id: driver for driver in alive if may_live(driver)}

    def take_over(self, shard: int, living: Mapping[str, DriverInfo]) -> DriverInfo | None:
        """Claims a shard that another driver had, unless that one lives.

        Args:
            shard: its number.
            living: as `living` gives them.

        Returns:
            The driver that has it; None where it is the caller's now.

        Raises:
            StorageError: the store failed.
        """
        prefix = f"{self._folder}/{shard:06d}."
        while True:
            names = [info.name for info in self._store.list(prefix)]
            number = max((int(name.split(".")[-2]) for name in names), default=-1)
            holder = self._holder(self._name(shard, number)) if names else ""
            if holder in living:
                return living[holder]
            if holder == self._own_id or self._store.put_if_absent(self._name(shard, number + 1), self._data):
                return None

    def release(self, shard: int) -> None:
        """Takes the caller's claim back, so that another driver may try."""
        try:
            for info in list(self._store.list(f"{self._folder}/{shard:06d}.")):
                self._store.delete(info.name)
                self._holders.pop(info.name, None)
        except StorageError as exc:
            log.warning("the claim on shard %d stays until this driver ends: %s", shard, exc)

    def _holder(self, name: str) -> str:
        """Who a claim names, read once; nobody where it is gone or cannot be read, as a hint may be."""
        if name not in self._holders:
            try:
                self._holders[name] = str(load_object(self._store.read(name)).get("driver_id", ""))
            except (ObjectNotFound, ValueError):
                return ""
        return self._holders[name]

    def _name(self, shard: int, number: int) -> str:
        return f"{self._folder}/{shard:06d}.{number:03d}.json"
