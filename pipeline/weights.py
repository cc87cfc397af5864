"""A weights file, checked: where it is, what it holds, and why it can't be used.

The one place of this layer that reads files. Torch checkpoints are read with `weights_only=True`, so a pickle
that would run code is refused; safetensors hold no code. Torch is imported only to read tensors: the identity
of a file (its sha256) must be known to drivers that never load a model.

The error tree:

    WeightsError (ValueError)
      MissingWeights    no such file
      DamagedWeights    cut short, or no weights file at all
      UnsafeWeights     a pickle that wants to run code
      WrongWeights      another model's
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config import SegmenterSettings

if TYPE_CHECKING:
    import torch

NANO_WEIGHTS = Path(__file__).parent / "segmenters" / "nano.safetensors"

_SAM_PAGE = "github.com/facebookresearch/segment-anything#model-checkpoints"
_VIT_WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_FORBIDDEN = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)")
_SHOWN_KEYS = 3


class WeightsError(ValueError):
    """Weights that can't be used."""


class MissingWeights(WeightsError):
    """No such file."""


class DamagedWeights(WeightsError):
    """Cut short, or no weights file."""


class UnsafeWeights(WeightsError):
    """A pickle that wants to run code."""


class WrongWeights(WeightsError):
    """Another model's weights."""


def resolve(settings: SegmenterSettings) -> Path:
    """The weights file of a segmenter: the given path, or the file shipped with nano.

    Raises:
        MissingWeights: a model that ships none without a path, or a path with no file.
    """
    if settings.weights is None and settings.model != "nano":
        raise MissingWeights(
            f"{settings.model} ships no weights: download its checkpoint ({_SAM_PAGE}) "
            "and name the file as weights"
        )
    path = NANO_WEIGHTS if settings.weights is None else Path(settings.weights).expanduser()
    if path.is_dir():
        raise MissingWeights(f"weights {path} is a folder: name the file in it")
    if not path.is_file():
        cure = "install maskmill again" if settings.weights is None else "check the path"
        raise MissingWeights(f"weights file {path} does not exist: {cure}")
    return path


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex; kept while its size and time stay the same.

    Raises:
        MissingWeights: no such file.
    """
    try:
        stat = path.stat()
    except FileNotFoundError as error:
        raise MissingWeights(f"weights file {path} does not exist: check the path") from error
    return _sha256(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256(path: str, size_bytes: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a weights file, on the CPU.

    Args:
        path: safetensors, or a torch checkpoint holding tensors by name, alone or under "model" or
            "state_dict".

    Raises:
        MissingWeights: no such file.
        DamagedWeights: the file is cut short or of another kind.
        UnsafeWeights: the file is a pickle with more than tensors in it.
    """
    if not path.is_file():
        raise MissingWeights(f"weights file {path} does not exist: check the path")
    if path.stat().st_size == 0:
        raise DamagedWeights(f"weights file {path} is empty: download it again")
    held = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    return _named_tensors(held, path)


def _is_safetensors(path: Path) -> bool:
    """By content: eight bytes of header length, then JSON; or by name, for a file cut before that."""
    with path.open("rb") as file:
        start = file.read(9)
    return start[8:9] == b"{" or path.suffix == ".safetensors"


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise DamagedWeights(
            f"weights file {path} is no whole safetensors file ({error}): download or export it again"
        ) from error


def _read_torch(path: Path) -> Any:
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        forbidden = _FORBIDDEN.search(str(error))
        if forbidden:
            raise UnsafeWeights(
                f"weights file {path} is refused: loading it would call {forbidden[1]}, and weights "
                "must hold tensors only. Where you trust it, save the model's state_dict() as safetensors"
            ) from error
        raise _damaged(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DamagedWeights:
    size_bytes = path.stat().st_size
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DamagedWeights(
        f"weights file {path} ({size_bytes} bytes) is cut short or no checkpoint ({first_line}): "
        "download it again"
    )


def _named_tensors(held: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch

    if isinstance(held, Mapping):
        for wrapper in ("model", "state_dict"):
            if isinstance(held.get(wrapper), Mapping):
                held = held[wrapper]
    if not isinstance(held, Mapping) or not all(isinstance(value, torch.Tensor) for value in held.values()):
        raise WrongWeights(f"weights file {path} holds no tensors by name: save the model's state_dict()")
    return dict(held)


def check_fit(
    tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], *, model: str, path: Path
) -> None:
    """Holds tensors against a model's own: the same names and shapes.

    Args:
        tensors: as read.
        expected: the model's `state_dict()`; only shapes are looked at.
        model: its name, for the message.
        path: the file's, for the message.

    Raises:
        WrongWeights: which names lack, are too many or have another shape, and whose weights they look like.
    """
    missing = sorted(expected.keys() - tensors.keys())
    unexpected = sorted(tensors.keys() - expected.keys())
    reshaped = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & tensors.keys())
        if tensors[name].shape != expected[name].shape
    ]
    findings = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN_KEYS])}{', ...' if len(names) > _SHOWN_KEYS else ''})"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped))
        if names
    ]
    if findings:
        raise WrongWeights(
            f"weights file {path} does not fit {model}: {'; '.join(findings)}. "
            f"It looks like {looks_like(tensors)}"
        )


def looks_like(tensors: Mapping[str, torch.Tensor]) -> str:
    """Whose weights these are, as far as their names and widths tell."""
    position = tensors.get("image_encoder.pos_embed")
    if position is not None and position.shape[-1] in _VIT_WIDTHS:
        return f"segment_anything's {_VIT_WIDTHS[position.shape[-1]]}"
    signs = {
        "image_encoder.stem.": "a maskmill student such as nano",
        "image_encoder.trunk.": "SAM 2",
        "image_encoder.patch_embed.seq.": "MobileSAM",
        "vision_encoder.": "SAM saved by transformers",
        "image_encoder.": "a model with segment_anything's layout, of another size",
    }
    for prefix, name in signs.items():
        if any(key.startswith(prefix) for key in tensors):
            return name
    return "no segmenter known here"
