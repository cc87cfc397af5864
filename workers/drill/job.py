"""What the conductor tells a driver, and how a driver ends."""

from __future__ import annotations

from dataclasses import dataclass, field

INCOMPLETE = 10
"""A driver's exit code: shards were given up, or the dataset is not sound; run it again."""

STOPPED = 11
"""An error that names its cause, such as a full disk; run it again."""


@dataclass(frozen=True, kw_only=True)
class DriverJob:
    """One driver's job.

    Attributes:
        dataset: the root.
        inputs: addresses.
        shard_size: images in a shard.
        address: of the Ray cluster.
        workers: at most so many.
        seconds: an image takes.
        deadline_s: of a turn at a shard.
        orders: the folder of write faults.
        events: the folder to tell events in.
        build: "module:function" that takes the drill's way to make a worker's stages and gives another, for
            tests that break something on purpose; "" keeps the drill's own.
        upset: clocks may jump, and leases are short; see upsets/clocks.py.
        command: what is done in place of driving, with these words; see upsets/beside.py.
    """

    dataset: str
    inputs: list[str]
    shard_size: int
    address: str
    workers: int
    seconds: float
    deadline_s: float
    orders: str
    events: str
    build: str = ""
    upset: bool = False
    command: str = ""
    words: list[str] = field(default_factory=list)
