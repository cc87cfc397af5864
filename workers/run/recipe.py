"""The shipped recipes: whole runs as TOML files, by name, for whoever starts one.

A recipe is sections of settings (recipes/*.toml). The command line makes a `RunConfig` of all of them
(flows/config.py), the library masks' and segmenter's settings of two (maskmill/annotator.py); both read them
here. Imports nothing heavy.

It doesn't know what a section may hold: the dataclass that owns the section does.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from maskmill.pipeline.settings import MaskSettings, SegmenterSettings

RECIPES_DIR = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = "nano"

Values = dict[str, dict[str, Any]]
"""Settings by section and field."""

SettingsT = TypeVar("SettingsT", MaskSettings, SegmenterSettings)


class ConfigError(ValueError):
    """A run that cannot be: names the field, the value and the cure."""


def recipe_names() -> tuple[str, ...]:
    """The shipped recipes, sorted."""
    return tuple(sorted(path.stem for path in RECIPES_DIR.glob("*.toml")))


def recipe_text(name: str) -> str:
    """A recipe's TOML as shipped, comments included.

    Raises:
        ConfigError: no recipe has this name.
    """
    if name not in recipe_names():
        raise ConfigError(
            f"recipe {name!r} is unknown{nearest(name, recipe_names())}: use one of "
            f"{', '.join(recipe_names())}"
        )
    return (RECIPES_DIR / f"{name}.toml").read_text(encoding="utf-8")


def recipe_purpose(name: str) -> str:
    """The first line of a recipe's heading comment: what it is for."""
    return recipe_text(name).splitlines()[0].removeprefix("#").strip()


def recipe_values(name: str) -> Values:
    """A recipe's settings by section and field, as far as it says them. Raises ConfigError."""
    return tomllib.loads(recipe_text(name))


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that was probably meant, in words to put behind the wrong one; "" if none is near."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def mask_settings(recipe: str, changes: Mapping[str, Any] | None = None) -> MaskSettings:
    """A recipe's [masks]: grid, thresholds, suppression, clean-up.

    Args:
        recipe: its name.
        changes: fields that shall have other values.

    Raises:
        ConfigError: no such recipe or field; the nearest is named.
        ValueError: a value out of its range.
    """
    return _made(MaskSettings, "masks", recipe, changes or {})


def segmenter_settings(recipe: str, changes: Mapping[str, Any] | None = None) -> SegmenterSettings:
    """A recipe's [segmenter]: model, weights, device, number format. Args and Raises: as `mask_settings`."""
    return _made(SegmenterSettings, "segmenter", recipe, changes or {})


def _made(kind: type[SettingsT], section: str, recipe: str, changes: Mapping[str, Any]) -> SettingsT:
    known = [field.name for field in dataclasses.fields(kind)]
    for name in changes:
        if name not in known:
            raise ConfigError(
                f"{section}.{name}: there is no such setting{nearest(name, known)}; known: {', '.join(known)}"
            )
    return kind(**{**recipe_values(recipe).get(section, {}), **changes})
