"""What a relabel would do: the shards that are stale, why, what they would cost, and which of them fit the
caps.

A shard is stale where it lacks a column version of the run: it is new, settings changed, or another model
is in force. Where it has that version from an earlier run, and the generation another one, nothing has to be
made and the shard changes all the same: it is said too. The cost is predicted from the seconds that the
generation's own records say; a column that is only selected from stored candidates costs no model. A
worker's start is a cost beside, whatever the work.

It doesn't know: what another model takes; then the prediction is the old one's, and says so.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskmill.flows.config import ConfigError, RunConfig, load_config, parse_sets, validate
from maskmill.storage.care.stale import ages, qualities, seconds_per_image, stale_shards
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.diff import changed_settings
from maskmill.storage.dataset.generations import latest
from maskmill.storage.dataset.picture_sets import load_set, shards_of
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.open import open_store
from maskmill.workers.run.columns import MASKS, segmenter_name
from maskmill.workers.stages.candidates import CANDIDATES
from maskmill.workers.stages.verdicts.record import VERDICTS

if TYPE_CHECKING:
    from pathlib import Path

    from maskmill.storage.care.stale import StaleShard
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.manifest import GenerationRow
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.run.spec import RunSpec

ORDERS = ("oldest", "worst")
SAMPLED_RECORDS = 32
START_S = 10.0
"""Predicted for a worker to start and load its models, once."""
SELECT_SECONDS = 0.05
"""Predicted for an image whose masks are selected from stored candidates."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelabelCaps:
    """How much a relabel may do.

    Args:
        max_shards: shards, at least 1; None is all.
        max_gpu_hours: predicted worker-hours (a worker has a GPU where there are any), above 0; None is all.
        order: which stale shards first: "oldest" by when they were made, or "worst" by the mean IoU of their
            masks, as a verifier expects it, or else as the model predicts it. New shards come before either.
        only: the name of a set of pictures: the shards that hold any of these, whole; "" is all.

    Raises:
        ConfigError: a cap that leaves nothing, an unknown order.
    """

    max_shards: int | None = None
    max_gpu_hours: float | None = None
    order: str = "oldest"
    only: str = ""

    def __post_init__(self) -> None:
        if self.order not in ORDERS:
            raise ConfigError(f"order={self.order!r} is unknown: use one of {', '.join(ORDERS)}")
        if self.max_shards is not None and self.max_shards < 1:
            raise ConfigError(f"max_shards={self.max_shards} leaves nothing to do: use at least 1")
        if self.max_gpu_hours is not None and not self.max_gpu_hours > 0:
            raise ConfigError(f"max_gpu_hours={self.max_gpu_hours} leaves nothing to do: use more than 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelabelPlan:
    """What is stale, and what of it is to be done.

    Attributes:
        dataset: its root. generation: the latest one's number, None before the first.
        stale_shards, stale_images: all that lack something. new_shards: of these, not in the generation yet.
        columns: column -> stale shards of it.
        reasons: what changed, for people.
        chosen: shard -> images: what the caps leave, in the order to be worked.
        chosen_columns: column -> chosen shards that lack it.
        gpu_hours: predicted worker-hours of the chosen; None where nothing was measured before.
        all_gpu_hours: of all that is stale.
        needs_model: some chosen shard needs more than a selection from stored candidates.
        notes: what the prediction doesn't know.
        stored: column -> shards that change to a version that is stored already, and costs nothing.
        set_images: of the chosen shards' images, those of the set that was asked for; None without a set.
    """

    dataset: str
    generation: int | None
    stale_shards: int
    stale_images: int
    new_shards: int
    columns: Mapping[str, int]
    reasons: tuple[str, ...]
    chosen: Mapping[int, int]
    chosen_columns: Mapping[str, int]
    gpu_hours: float | None
    all_gpu_hours: float | None
    needs_model: bool
    notes: tuple[str, ...] = ()
    stored: Mapping[str, int] = dataclasses.field(default_factory=dict)
    set_images: int | None = None

    @property
    def num_images(self) -> int:
        """Images of the chosen shards."""
        return sum(self.chosen.values())


def settings_of(dataset: str, recipe: str | None, file: str | Path | None, sets: Iterable[str]) -> RunConfig:
    """The run to relabel by: that of the latest generation, unless a recipe or file says otherwise.

    Raises:
        ConfigError: as `load_config`; or the generation's settings are none of this version's.
        DatasetError: there is no generation, and no recipe or file.
    """
    if recipe is not None or file is not None:
        return load_config(recipe, file, sets)
    settings = find_generation(open_store(dataset)).settings
    known = {name: value for name, value in settings.items() if name in RunConfig.model_fields}
    try:
        base = validate(known)
    except ConfigError as exc:
        raise ConfigError(
            f"{dataset}: its latest generation was made by settings that this version doesn't have ({exc}): "
            "name them with --recipe or --config"
        ) from exc
    return with_sets(base, sets)


def with_sets(config: RunConfig, sets: Iterable[str]) -> RunConfig:
    """The run with `section.field=value` pairs on top.

    Raises:
        ConfigError: a pair of another form, an unknown section or field, a value out of range.
    """
    values = config.model_dump(mode="json")
    for section, fields in parse_sets(sets).items():
        if section not in values or not isinstance(values[section], dict):
            raise ConfigError(f"--set: there is no section [{section}]")
        values[section] = {**values[section], **fields}
    return validate(values)


def make_relabel_plan(spec: RunSpec, config: RunConfig, caps: RelabelCaps) -> RelabelPlan:
    """Finds what is stale and chooses by the caps; reads names, and records and indexes of a part.

    Raises:
        StorageError: the dataset cannot be read.
        NoSuchThing: there is no such set of pictures.
    """
    store = open_store(spec.root)
    generation = latest(store)
    plan = load_plans(store)
    stale = stale_shards(store, spec.fingerprints, generation, plan)
    rows = _rows_of(generation)
    stored = _stored(store, spec, rows)
    ordered = _in_order(store, stale, rows, caps.order)
    prices, notes = _prices(store, spec, rows)
    cost = {found.shard: _cost(found, prices) for found in ordered}
    keys = load_set(store, caps.only).keys if caps.only else ()
    within = shards_of(store, keys) if caps.only else None
    chosen = _within([one for one in ordered if within is None or one.shard in within], cost, caps)
    worked = {found.shard for found in chosen}
    return RelabelPlan(
        dataset=spec.root,
        generation=generation.number if generation is not None else None,
        stale_shards=len(stale),
        stale_images=sum(found.num_images for found in stale),
        new_shards=sum(found.is_new for found in stale),
        columns=_count(stale),
        reasons=_reasons(generation, spec, config, stale, stored),
        chosen={found.shard: found.num_images for found in chosen},
        chosen_columns=_count(chosen),
        gpu_hours=_hours(chosen, cost),
        all_gpu_hours=_hours(ordered, cost),
        needs_model=any(set(found.columns) != {MASKS} or not _selects(spec) for found in chosen),
        notes=notes,
        stored=stored,
        set_images=sum(plan.shard_of(key) in worked for key in keys) if caps.only else None,
    )


def plan_lines(plan: RelabelPlan) -> list[tuple[str, Any]]:
    """The plan for people."""
    lines: list[tuple[str, Any]] = [
        ("stale shards", f"{plan.stale_shards} ({plan.stale_images} images), {plan.new_shards} of them new")
    ]
    lines += [(f"  {column}", f"{shards} shards") for column, shards in plan.columns.items()]
    lines += [
        (f"  {column}", f"{shards} shards change to a version that is stored already: nothing to recompute")
        for column, shards in plan.stored.items()
    ]
    lines += [("because", reason) for reason in plan.reasons]
    if plan.stale_shards:
        lines.append(("to be done now", f"{len(plan.chosen)} shards, {plan.num_images} images"))
        if plan.set_images is not None:
            lines.append(("  of the set", f"{plan.set_images} of these images; shards are made whole"))
        lines += [(f"  {column}", f"{shards} shards") for column, shards in plan.chosen_columns.items()]
        lines.append(("predicted", _predicted(plan)))
        if not plan.needs_model and plan.chosen:
            lines.append(("by", "selection from stored candidates: no model is loaded"))
    return lines


def _predicted(plan: RelabelPlan) -> str:
    if plan.gpu_hours is None:
        return "unknown: nothing was measured yet (`maskmill generate --dry-run` measures)"
    whole = "" if plan.gpu_hours == plan.all_gpu_hours else f" of {plan.all_gpu_hours:.3g} for all"
    start = f", and about {START_S:g} s for each worker to start" if plan.needs_model else ""
    return f"{plan.gpu_hours:.3g} worker-hours{whole}{start}"


def _stored(
    store: ObjectStore, spec: RunSpec, rows: Mapping[str, Mapping[int, GenerationRow]]
) -> dict[str, int]:
    """Shards by column whose version of the run is committed, while the generation has another one."""
    found = {}
    for column, digits in spec.fingerprints.items():
        other = {shard for shard, row in rows.get(column, {}).items() if row.fingerprint != digits}
        there = other & ColumnVersion(store, column, digits).committed() if other else set()
        if there:
            found[column] = len(there)
    return found


def _rows_of(generation: Generation | None) -> dict[str, dict[int, GenerationRow]]:
    """The generation's rows by column and shard."""
    rows: dict[str, dict[int, GenerationRow]] = {}
    for row in generation.rows() if generation is not None else ():
        rows.setdefault(row.column, {})[row.shard] = row
    return rows


def _in_order(
    store: ObjectStore,
    stale: Sequence[StaleShard],
    rows: Mapping[str, Mapping[int, GenerationRow]],
    order: str,
) -> list[StaleShard]:
    """New shards first, then by age or quality of the masks they have; equals by number."""
    masks = rows.get(MASKS, {})
    old = [masks[found.shard] for found in stale if found.shard in masks]
    rank: Mapping[int, float | str] = (
        ages(store, old) if order == "oldest" else qualities(store, old, rows.get(VERDICTS, {}))
    )
    known = [found for found in stale if found.shard in rank]
    return [
        *(found for found in stale if found.shard not in rank),
        *sorted(known, key=lambda found: (rank[found.shard], found.shard)),
    ]


def _prices(
    store: ObjectStore, spec: RunSpec, rows: Mapping[str, Mapping[int, GenerationRow]]
) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """Predicted seconds an image by column, from a part of the records; and what that doesn't know."""
    from maskmill.workers.reading.survey import spread

    prices: dict[str, float | None] = {}
    for column in spec.fingerprints:
        found = list(rows.get(column, {}).values())
        part = [found[i] for i in spread(len(found), SAMPLED_RECORDS, seed=0)]
        prices[column] = seconds_per_image(store, part)
    if _selects(spec):
        prices[CANDIDATES] = prices[CANDIDATES] if prices[CANDIDATES] is not None else prices[MASKS]
        prices[MASKS] = SELECT_SECONDS
    unknown = [column for column, price in prices.items() if price is None]
    notes = [f"{column}: never measured here, not in the prediction" for column in unknown]
    return prices, tuple(notes)


def _selects(spec: RunSpec) -> bool:
    """Whether masks are selected from candidates, and cost no model of their own."""
    return CANDIDATES in spec.fingerprints


def _cost(found: StaleShard, prices: Mapping[str, float | None]) -> float | None:
    """Predicted seconds of a worker; None where no lacking column was ever measured."""
    known = [price for column in found.columns if (price := prices[column]) is not None]
    return found.num_images * sum(known) if known else None


def _within(
    ordered: Sequence[StaleShard], cost: Mapping[int, float | None], caps: RelabelCaps
) -> list[StaleShard]:
    """As many as the caps allow; at least one shard, so that a relabel always gets on."""
    chosen: list[StaleShard] = []
    seconds = 0.0
    for found in ordered:
        if caps.max_shards is not None and len(chosen) >= caps.max_shards:
            break
        seconds += cost[found.shard] or 0.0
        if chosen and caps.max_gpu_hours is not None and seconds > caps.max_gpu_hours * 3600:
            break
        chosen.append(found)
    return chosen


def _hours(found: Sequence[StaleShard], cost: Mapping[int, float | None]) -> float | None:
    known = [seconds for each in found if (seconds := cost[each.shard]) is not None]
    return sum(known) / 3600 if known or not found else None


def _count(found: Sequence[StaleShard]) -> dict[str, int]:
    return dict(Counter(column for each in found for column in each.columns))


def _reasons(
    generation: Generation | None,
    spec: RunSpec,
    config: RunConfig,
    stale: Sequence[StaleShard],
    stored: Mapping[str, int],
) -> tuple[str, ...]:
    """What is new, what changed in settings and models since the generation."""
    num_new = sum(found.is_new for found in stale)
    reasons = [f"{num_new} shards are new"] if num_new else []
    if generation is None or (num_new == len(stale) and not stored):
        return tuple(reasons)
    sections = set(spec.settings)
    now = config.model_dump(mode="json", include=sections)
    before = {name: value for name, value in generation.settings.items() if name in sections}
    changes = changed_settings(before, now)
    reasons += [f"{change.name}: {change.before} -> {change.after}" for change in changes]
    before_model, now_model = generation.models.get("segmenter", "none"), segmenter_name(spec.segmenter)
    if before_model != now_model:
        reasons.append(f"segmenter: {before_model} -> {now_model}")
    return tuple(reasons) or ("this version makes other output (a stage's revision)",)
