"""What a run is: `RunConfig`, its recipes, and how a file and --set change them.

The settings of the layers below are frozen dataclasses that check their own ranges; pydantic reads them here
as they are, so that no field is stated twice. A run starts from a recipe (workers/run/recipe.py), a file may
change it, then `section.field=value` pairs may. Unknown sections and fields are refused with the nearest
name; a value out of range is refused by the dataclass that owns it. "none" unsets a field that may be empty,
as TOML has no null.

This file imports no torch, ray or prefect: `maskmill config show` answers at once. It doesn't know whether
weights exist or a cluster answers; that is found when the run starts.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from maskmill.flows.services.ray.address import place_of
from maskmill.pipeline.checks import check_int, check_range
from maskmill.pipeline.settings import (
    BoxSettings,
    CaptionSettings,
    DistillSettings,
    EmbeddingSettings,
    EvaluateSettings,
    GateSettings,
    LabelSettings,
    MaskSettings,
    NameSettings,
    SegmenterSettings,
    TrainSettings,
    VerdictSettings,
)
from maskmill.storage.json_text import why_unreadable
from maskmill.workers.exports.formats import ExportChoices
from maskmill.workers.exports.publish.settings import PublishSettings
from maskmill.workers.run.columns import Sections
from maskmill.workers.run.ingest_settings import IngestSettings
from maskmill.workers.run.loop_settings import LoopSettings
from maskmill.workers.run.recipe import DEFAULT_RECIPE, Values, nearest, recipe_names, recipe_values
from maskmill.workers.run.recipe import ConfigError as ConfigError
from maskmill.workers.run.work_settings import WorkSettings
from maskmill.workers.stages.registry import section_kinds, sections_of

UNSET = "none"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings(WorkSettings):
    """How a run is carried out; nothing here changes what is written, but where shards are cut.

    Args:
        workers: processes that annotate at once; None is one per GPU, else as many as CPUs and memory hold.
        shard_size: images in a shard, 1 to 100,000: the unit of work and of loss. None is about ten minutes'
            worth by this dataset's own speed, and at least two shards a worker (storage/plan/cutting.py).
        max_attempts: turns at a shard that may fail before it is given up, 1 to 10.
        deadline_s: seconds a turn at a shard may take (at an image, where a shard is run image by image)
            before its worker counts as hung and is replaced, at least 10.
        decode_threads, encode_threads, images_per_batch: as `WorkSettings` has them.
        ray_address: of a running Ray cluster: "host:6379" on one of its nodes, "ray://host:10001" from
            elsewhere; None starts one on this machine.
        autoscale: workers beyond what the cluster's nodes hold, up to `workers`, wait in Ray's queue for its
            autoscaler to add nodes; without an autoscaler they wait in vain.
        metrics_port: where Prometheus finds the run's metrics, 1 to 65535; None opens nothing.
        log_file: a file of the driver's that gets every event as a line of JSON; None writes none.
    """

    workers: int | None = None
    shard_size: int | None = None
    max_attempts: int = 3
    deadline_s: float = 6 * 3600.0
    ray_address: str | None = None
    autoscale: bool = False
    metrics_port: int | None = None
    log_file: str | None = None

    def __post_init__(self) -> None:
        WorkSettings.__post_init__(self)
        if self.workers is not None:
            check_int("workers", self.workers, 1, 10_000)
        elif self.autoscale:
            raise ValueError(
                "autoscale=True needs a goal: say how many workers there should be (run.workers)"
            )
        if self.ray_address is not None:
            place_of(self.ray_address)
        if self.shard_size is not None:
            check_int("shard_size", self.shard_size, 1, 100_000)
        check_int("max_attempts", self.max_attempts, 1, 10)
        check_range("deadline_s", self.deadline_s, 10.0, 604_800.0)
        if self.metrics_port is not None:
            check_int("metrics_port", self.metrics_port, 1, 65535)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportSettings(ExportChoices):
    """How `export` writes a generation out: `ExportChoices`, within what files of a dataset are good for.

    Args:
        format, images, column, polygons, prefer, ids_of, only, where, masks_where, limit, split, classes,
            class_map, min_label_score: as `ExportChoices` has them.
        max_images: images in an exported tar or Parquet file, 1 to 1,000,000.
        max_bytes: bytes in an exported tar or Parquet file, at least 1,000,000.
    """

    def __post_init__(self) -> None:
        ExportChoices.__post_init__(self)
        check_int("max_images", self.max_images, 1, 1_000_000)
        check_int("max_bytes", self.max_bytes, 1_000_000, 2**40)


class RunConfig(BaseModel):
    """A whole run, resolved. `recipe` names what it started from and has no effect of its own.

    The sections of word columns and verdicts are off while their first field is unset.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: str = DEFAULT_RECIPE
    ingest: IngestSettings = Field(default_factory=IngestSettings)
    segmenter: SegmenterSettings = Field(default_factory=SegmenterSettings)
    embeddings: EmbeddingSettings = Field(default_factory=EmbeddingSettings)
    masks: MaskSettings = Field(default_factory=MaskSettings)
    verdicts: VerdictSettings = Field(default_factory=VerdictSettings)
    captions: CaptionSettings = Field(default_factory=CaptionSettings)
    labels: LabelSettings = Field(default_factory=LabelSettings)
    names: NameSettings = Field(default_factory=NameSettings)
    boxes: BoxSettings = Field(default_factory=BoxSettings)
    run: RunSettings = Field(default_factory=RunSettings)
    export: ExportSettings = Field(default_factory=ExportSettings)
    publish: PublishSettings = Field(default_factory=PublishSettings)
    evaluate: EvaluateSettings = Field(default_factory=EvaluateSettings)
    retrain: TrainSettings = Field(default_factory=TrainSettings)
    distill: DistillSettings = Field(default_factory=DistillSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    loop: LoopSettings = Field(default_factory=LoopSettings)

    @model_validator(mode="after")
    def _columns_fit(self) -> RunConfig:
        self.column_sections()
        return self

    def column_sections(self) -> Sections:
        """The settings of the columns, by section, for `make_spec` and the like.

        Raises:
            ValueError: settings that don't go together.
        """
        return sections_of({name: getattr(self, name) for name in section_kinds()})


def load_config(
    recipe: str | None = None, file: str | Path | None = None, sets: Iterable[str] = ()
) -> RunConfig:
    """Resolves a run: the recipe, then the file, then the pairs; later wins.

    Args:
        recipe: a shipped recipe's name; None is the file's `recipe`, or nano.
        file: a TOML file with any of the sections, and perhaps `recipe = "..."` as its base.
        sets: pairs such as "masks.points_per_side=16".

    Raises: ConfigError: an unknown recipe, section or field (the nearest is named), a value of the wrong
        type or out of range, a file that is missing or no TOML, a recipe given twice and differently.
    """
    values = _read_file(file) if file is not None else {}
    base = values.pop("recipe", None)
    if base is not None and not isinstance(base, str):
        raise ConfigError(
            f"{file}: recipe = {base!r} must be a name in quotes, one of {', '.join(recipe_names())}"
        )
    if recipe is not None and base is not None and recipe != base:
        raise ConfigError(
            f"{file} is based on recipe {base!r}, but {recipe!r} was asked for: name it in one place"
        )
    name = next(each for each in (recipe, base, DEFAULT_RECIPE) if each is not None)
    merged = _merge(recipe_values(name), values, source=str(file))
    merged = _merge(merged, parse_sets(sets), source="--set")
    return validate({"recipe": name, **merged})


def validate(values: Mapping[str, Any]) -> RunConfig:
    """Checks plain values (sections of fields) and makes the RunConfig.

    Raises:
        ConfigError: as `load_config`; every problem found is listed.
    """
    try:
        return RunConfig.model_validate(_unset(values))
    except ValidationError as exc:
        raise ConfigError("\n".join(_problem(error) for error in exc.errors())) from exc


def to_toml(config: RunConfig) -> str:
    """The resolved run as TOML that `--config` reads back to the same run; "none" is an unset field."""
    lines = [f"recipe = {json.dumps(config.recipe)}"]
    for section in sections():
        lines += ["", f"[{section}]"]
        settings = getattr(config, section)
        for field in dataclasses.fields(settings):
            value = getattr(settings, field.name)
            lines.append(f"{field.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(UNSET if value is None else value)


def sections() -> tuple[str, ...]:
    """The sections of a run's TOML, in order."""
    return tuple(name for name in RunConfig.model_fields if name != "recipe")


def field_names(section: str) -> tuple[str, ...]:
    """The fields of a section, in order."""
    kind = RunConfig.model_fields[section].annotation
    assert isinstance(kind, type) and dataclasses.is_dataclass(kind)
    return tuple(field.name for field in dataclasses.fields(kind))


def _read_file(path: str | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"config file {path} cannot be read: {why_unreadable(exc)}") from exc
    except (ValueError, RecursionError) as exc:  # a number of 5,000 digits is no TOMLDecodeError
        raise ConfigError(f"config file {path} is not TOML: {why_unreadable(exc)}") from exc


def parse_sets(sets: Iterable[str]) -> Values:
    """`section.field=value` pairs as sections of fields. Raises ConfigError for a pair of another form."""
    values: Values = {}
    for pair in sets:
        name, equals, text = pair.partition("=")
        section, dot, field = name.strip().partition(".")
        if not (equals and dot and section and field):
            raise ConfigError(f"--set {pair!r}: write section.field=value, such as masks.points_per_side=16")
        values.setdefault(section, {})[field] = _parse_value(text.strip())
    return values


def _parse_value(text: str) -> Any:
    """A TOML value where it is one, else the text itself: --set segmenter.weights=/a/b.pth needs no
    quotes."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    merged = dict(base)
    for section, fields in changes.items():
        if section not in sections():
            raise ConfigError(
                f"{source}: there is no section [{section}]{nearest(section, sections())}; the "
                f"sections are {', '.join(sections())}"
            )
        if not isinstance(fields, Mapping):
            raise ConfigError(
                f"{source}: {section} = {fields!r} must be a section: write [{section}] and its fields"
            )
        merged[section] = {**merged.get(section, {}), **fields}
    return merged


def _unset(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _unset(value) if isinstance(value, Mapping) else None if value == UNSET else value
        for name, value in values.items()
    }


def _problem(error: Any) -> str:
    """One line for one of pydantic's errors: where, what, and the cure."""
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        section, _, field = place.rpartition(".")
        known = field_names(section) if section in sections() else sections()
        return f"{place}: there is no such setting{nearest(field, known)}; known: {', '.join(known)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error":
        return f"[{place}] {message}" if place else message
    return f"{place} = {error['input']!r}: {message[0].lower()}{message[1:]}"
