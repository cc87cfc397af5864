"""Numbered records that nobody names: is one of them gone?

Plans, generations, models, promotions, gate decisions and tags are logs: records numbered from 1 without
gaps, each decided by put-if-absent. So a gap is a loss. The last one of a log leaves no gap; a generation
therefore keeps how far each log had come when it was published (`Generation.seen`).

    plan/000002.json   generations/000003/generation.json   models/segmenter/000001/card.json
    models/segmenter/promotions/000001.json   models/segmenter/000001/gate/000001.json   tags/best/000001.json

It does not know: what a record says; a loss of a log's last record, if nothing was published after it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from maskmill.storage.stores.base import ObjectStore

LOGS = ("plan/", "generations/", "models/", "tags/")
_RECORD = re.compile(r"(.+?)/(\d{6,})(?:\.json|/card\.json|/generation\.json)")
_BEGUN = re.compile(r"(generations|models/[^/]+)/(\d{6,})/(?:manifest|weights)\.[^/]+")


def numbers_by_log(store: ObjectStore) -> dict[str, set[int]]:
    """The numbers that each log has, by its folder."""
    return _numbers(store, _RECORD)


def highest_by_log(store: ObjectStore) -> dict[str, int]:
    """How far each log but the generations' own has come."""
    logs = numbers_by_log(store)
    return {folder: max(numbers) for folder, numbers in sorted(logs.items()) if folder != "generations"}


def lost_records(store: ObjectStore, seen: Mapping[str, int], *, at_rest: bool) -> Iterator[str]:
    """What is gone, a sentence each.

    Args:
        store: the dataset.
        seen: the highest number that each log is known to have had.
        at_rest: nobody writes now: a generation or model that has its data and no record is one that was
            killed, or whose record is gone.
    """
    logs = numbers_by_log(store)
    for folder in sorted(logs.keys() | seen.keys()):
        there = logs.get(folder, set())
        for number in sorted(set(range(1, max([seen.get(folder, 0), *there]) + 1)) - there):
            yield (
                f"{store.root}/{_name(folder, number)} is gone; put it back from a backup or an older "
                "version of the bucket: nothing else holds what it said"
            )
    for folder, begun in sorted(_numbers(store, _BEGUN).items()) if at_rest else ():
        there = logs.get(folder, set())
        for number in sorted(one for one in begun - there if one > max([0, *there])):
            yield (
                f"{store.root}/{_name(folder, number)} is gone, or its writer was killed before it; put it "
                "back, or run the command that wrote it again (`maskmill gc` removes what a killed one left)"
            )


def _name(folder: str, number: int) -> str:
    if folder == "generations":
        return f"{folder}/{number:06d}/generation.json"
    return f"{folder}/{number:06d}{'/card' if re.fullmatch('models/[^/]+', folder) else ''}.json"


def _numbers(store: ObjectStore, pattern: re.Pattern[str]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    for log in LOGS:
        for info in store.list(log):
            match = pattern.fullmatch(info.name)
            if match and "/runs/" not in info.name:  # checkpoints: old ones are dropped
                found[match[1]].add(int(match[2]))
    return found
