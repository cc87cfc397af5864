"""What the settings of all model roles share: neutral fields, devices, number formats, where a model lies.

A field marked neutral never changes what is written (batch sizes, device, threads, where a file lies), so it
is left out of `output_settings` and of every fingerprint built on it. Weights enter a fingerprint by their
sha256 (`maskmill.pipeline.segmenters.weights_identity`), never by their path.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from maskmill.pipeline.checks import check_choice, check_int

Scalar = str | int | float | bool | None

NEUTRAL = {"neutral": True}
"""Metadata of a field that changes nothing that is written."""

LATER = {"later": True}
"""Metadata of a field that came after datasets were made with its settings: its default is what they had."""

DTYPES = ("float32", "bfloat16", "float16")

_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def output_settings(settings: Any) -> dict[str, Scalar]:
    """The fields of a settings dataclass that change what is written, in declared order.

    Args:
        settings: an instance of a dataclass with JSON scalars as fields.

    Returns:
        Field name to value, without the fields whose metadata says neutral, and without those that came
        later (`LATER`) where they have their default: so older datasets keep their fingerprints.

    Raises:
        ValueError: `settings` is no dataclass instance.
    """
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        raise ValueError(f"output_settings reads a settings dataclass, got {type(settings).__name__}")
    fields = [field for field in dataclasses.fields(settings) if not field.metadata.get("neutral", False)]
    values = {field.name: getattr(settings, field.name) for field in fields}
    later = {field.name: field.default for field in fields if field.metadata.get("later", False)}
    return {name: value for name, value in values.items() if name not in later or value != later[name]}


def check_device(device: object) -> None:
    """A device as settings spell it; whether this machine has it is found when the model is loaded.

    Raises:
        ValueError: another word.
    """
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise ValueError(f"device={device!r} is unknown: use auto, cpu, cuda, cuda:<number> or mps")


def check_model(name: str, value: str | None) -> None:
    """A folder or hub id, or None.

    Args:
        name: of the field.
        value: what it says.

    Raises:
        ValueError: no text, or an empty one.
    """
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ValueError(f"{name}={value!r} is no model: name a folder or a hub id, or none")


def check_role(batch_size: int, device: str, dtype: str) -> None:
    """What every model role has.

    Args:
        batch_size: inputs together, 1 to 65,536.
        device: see `check_device`.
        dtype: one of `DTYPES`.

    Raises:
        ValueError: the first that is wrong.
    """
    check_int("batch_size", batch_size, 1, 65_536)
    check_device(device)
    check_choice("dtype", dtype, DTYPES)
