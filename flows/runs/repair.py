"""The run of `maskmill verify --repair`: which settings can make what is damaged again, and making it so.

A damaged column is made again by the settings that made it: those that generations recorded, the newest
first, or the ones given on the command line. Weights that are gone, or other ones under the same name, give
another fingerprint, and are said to be no help. The writer's lock is held while anything is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from maskmill.flows.config import RunConfig, validate
from maskmill.flows.report.report import watcher
from maskmill.flows.runs.steps.annotating import annotate_shards
from maskmill.flows.runs.steps.holding import writing
from maskmill.flows.runs.steps.planning import describe_run
from maskmill.storage.care.damage import find_damage
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.generations import list_generations, load_generation
from maskmill.storage.stores.open import open_store

if TYPE_CHECKING:
    from maskmill.storage.care.damage import Found
    from maskmill.workers.jobs.repair import RepairReport
    from maskmill.workers.run.spec import RunSpec


def look_for_damage(dataset: str, *, deep: bool, given: RunConfig | None = None) -> Found:
    """What `repair` would make again; changes nothing.

    Args:
        dataset: its root.
        deep: read every byte.
        given: settings whose columns are looked at beside those in force.

    Raises:
        StorageError: the dataset cannot be read.
    """
    also = _fingerprints(dataset, given)
    return find_damage(open_store(dataset), deep=deep, also=also, progress=watcher().count)


def repair(dataset: str, found: Found, *, deep: bool, given: RunConfig | None) -> RepairReport:
    """Makes damaged shards again, and publishes a generation that names them.

    Args:
        dataset: its root.
        found: by `look_for_damage`.
        deep: whether damage is looked for in every byte.
        given: settings from the command line, tried before those that generations recorded.

    Raises:
        WriterBusy: another writer works on the dataset.
        StorageError, ClusterError, RunStopped: what was committed stays; the same command goes on.
    """
    from maskmill.workers.jobs import repair as job

    def work(spec: RunSpec, shards: Mapping[int, int]) -> Mapping[int, str]:
        """Makes shards again by the settings whose fingerprints they carry."""
        config = next(config for config, known in runs if known.fingerprints == spec.fingerprints)
        watcher().step(f"making {len(shards)} shards again")
        return annotate_shards(spec, config, shards).failed_shards

    with writing(dataset, "repair"):
        runs = _runs(dataset, given)
        return job.repair(
            open_store(dataset),
            [spec for _, spec in runs],
            work,
            deep=deep,
            created_utc=now_utc(),
            found=found,
            also=_fingerprints(dataset, given),
        )


def _fingerprints(dataset: str, given: RunConfig | None) -> Mapping[str, str]:
    return describe_run(dataset, given).fingerprints if given is not None else {}


def _runs(dataset: str, given: RunConfig | None) -> list[tuple[RunConfig, RunSpec]]:
    """The settings at hand with the fingerprints they make, each set once."""
    runs: list[tuple[RunConfig, RunSpec]] = []
    for config in _configs(dataset, given):
        try:
            spec = describe_run(dataset, config)
        except ValueError as exc:  # weights that are gone: they make nothing any more
            watcher().note(str(exc))
            continue
        if all(spec.fingerprints != known.fingerprints for _, known in runs):
            runs.append((config, spec))
    return runs


def _configs(dataset: str, given: RunConfig | None) -> Iterable[RunConfig]:
    if given is not None:
        yield given
    store = open_store(dataset)
    seen: list[Mapping[str, object]] = []
    for number in reversed(list_generations(store)):
        settings = load_generation(store, number).settings
        if settings in seen:
            continue
        seen.append(settings)
        known = {name: value for name, value in settings.items() if name in RunConfig.model_fields}
        try:
            yield validate(known)
        except ValueError as exc:
            watcher().note(f"the settings that generation {number} recorded are of no use here: {exc}")
