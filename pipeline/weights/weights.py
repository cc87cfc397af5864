"""A model's weights, checked: where they are, what they hold, and why they can't be used.

The one place of this layer that finds and reads files. A source is a local file, a local folder as
`save_pretrained` writes it, a word (settings/published.py, kept.py) or a hub id (hub.py). Torch checkpoints
are read with `weights_only=True`, so a pickle that would run code is refused; safetensors hold no code. Torch
is imported only to read tensors: the identity of a model (its sha256) must be known to drivers that never
load one.
"""

from __future__ import annotations

import functools
import hashlib
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.settings.families import family_of
from maskmill.pipeline.settings.published import names_for, published
from maskmill.pipeline.settings.segmenter import SegmenterSettings
from maskmill.pipeline.weights import hub
from maskmill.pipeline.weights.errors import (
    DamagedWeights,
    MissingWeights,
    UnsafeWeights,
    WeightsError,
    WrongWeights,
)
from maskmill.pipeline.weights.kept import absent, kept
from maskmill.pipeline.weights.unwrapped import named_tensors, without_prefix

if TYPE_CHECKING:
    import torch

NANO_WEIGHTS = Path(__file__).parents[1] / "segmenters" / "nano.safetensors"

_VIT_WIDTHS = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_FORBIDDEN = re.compile(r"[Uu]nsupported (?:global: )?GLOBAL ([\w.]+)")
_FILE_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
_SHOWN_KEYS = 3


def locate(source: str, *, role: str) -> Path:
    """Where a model lies on this machine; one on the hub is fetched first.

    Args:
        source: path of a file or folder, a word of published.py, or a hub id `owner/name[@revision][:file]`;
            a path that exists wins.
        role: whose model it is, for messages.

    Raises:
        MissingWeights: there is no such path, the word's file was not fetched, or the hub does not give it;
            the message says what to do.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    one = published(source)
    if one is not None and (fetched := kept(one)) is not None:
        return fetched
    hub_id = _hub_id(source)
    if hub_id is None:
        raise MissingWeights(f"{role}: {absent(source)}")
    try:
        return hub.fetch(hub_id)
    except MissingWeights as error:
        raise MissingWeights(f"{role}: {error}") from error


def pinned(source: str) -> str:
    """The source with the commit that its hub id stands for now; a local path made absolute.

    A driver pins, so that every worker of a run loads the same weights however the hub moves on, and whatever
    folder it was started in.

    Raises:
        MissingWeights: as `locate`.
    """
    path = Path(source).expanduser()
    if path.exists():
        return str(path.absolute())
    if (hub_id := _hub_id(source)) is None:
        return source
    return str(hub.pin(hub_id))


def _hub_id(source: str) -> hub.HubId | None:
    """What `source` names on the hub; None where it can only be a path."""
    hub_id = hub.parse(source)
    is_file = hub_id is not None and hub_id.file is None and Path(source).suffix in _FILE_SUFFIXES
    return None if is_file else hub_id


def resolve(settings: SegmenterSettings) -> Path:
    """The weights of a segmenter: a file or folder, or the file shipped with nano.

    Raises:
        MissingWeights: a model that ships none without a source, or a source that is not there.
    """
    family = family_of("segmenter", settings.model)
    if settings.weights is None and family.name != "nano":
        words = " or ".join(f"`maskmill fetch {name}`" for name in names_for(settings.model))
        raise MissingWeights(
            f"{settings.model} ships no weights: {f'use {words}, or ' if words else ''}download "
            f"{family.example} and name as weights {family.weights}"
        )
    path = NANO_WEIGHTS if settings.weights is None else locate(settings.weights, role="segmenter")
    if path.is_dir() and not family.takes_folder:
        raise MissingWeights(f"weights {path} is a folder: name the file in it, as {family.name} needs")
    if path.is_file() and not family.takes_file:
        raise MissingWeights(
            f"weights {path} is a file: {family.name} needs a folder as save_pretrained writes it, or a hub "
            f"id such as {family.example}"
        )
    if not path.exists():
        raise MissingWeights(f"weights file {path} does not exist: install maskmill again")
    return path


def identity(source: str, *, role: str) -> str:
    """The sha256 in hex of what a source holds, for fingerprints; loads no model.

    Raises:
        MissingWeights: as `locate`.
    """
    return sha256_of(locate(source, role=role))


def sha256_of(path: Path) -> str:
    """The sha256 in hex of a weights file, or of all that is read of a model's folder.

    Of a folder: its settings, vocabularies and weights (`model_files`), by name. It is the same for a
    downloaded snapshot and a copy of it. Files are read once, while their size and time stay the same.

    Raises:
        MissingWeights: no such file or folder, or a folder without weights.
    """
    if path.is_dir():
        lines = [f"{sha256_of(file)}  {file.name}\n" for file in model_files(path)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    try:
        stat = path.stat()
    except FileNotFoundError as error:
        raise MissingWeights(f"weights file {path} does not exist: check the path") from error
    return _sha256(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


def model_files(folder: Path) -> list[Path]:
    """What is read of a model's folder, sorted by name: settings, vocabularies, and safetensors or, without
    any, torch weights.

    Raises:
        MissingWeights: it has no weights that may be read.
    """

    def matching(patterns: Sequence[str]) -> set[Path]:
        """The folder's files of these names."""
        return {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}

    tensors = matching(hub.SAFETENSORS) or matching(hub.TORCH_WEIGHTS)
    if not tensors:
        raise MissingWeights(
            f"folder {folder} holds no model.safetensors: save the model there with save_pretrained, or name "
            "another folder"
        )
    return sorted(tensors | matching(hub.SETTINGS), key=lambda path: path.name)


@functools.lru_cache(maxsize=64)
def _sha256(path: str, size_bytes: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a weights file, on the CPU.

    Args:
        path: safetensors, or a torch checkpoint holding tensors by name, alone or wrapped as trainers do it
            (unwrapped.py).

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
    return named_tensors(held, path)


def read_model(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a file with a whole model, without a prefix that all names share.

    Args:
        path: as for `read_tensors`; errors too.

    Raises:
        WrongWeights: no tensors by name, or pixel statistics that are not SAM's.
    """
    return without_prefix(read_tensors(path), path)


def read_folder(folder: Path) -> dict[str, torch.Tensor]:
    """The named tensors of all weights files of a model's folder; errors as `read_tensors`."""
    tensors: dict[str, torch.Tensor] = {}
    for path in model_files(folder):
        if path.suffix in _FILE_SUFFIXES:
            tensors |= read_tensors(path)
    return tensors


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
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise unpickling(path, error) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise _damaged(path, error) from error


def unpickling(path: Path, error: Exception) -> WeightsError:
    """What a refused pickle means: code in it, or a cut or foreign file."""
    forbidden = _FORBIDDEN.search(str(error))
    if forbidden is None:
        return _damaged(path, error)
    return UnsafeWeights(
        f"weights file {path} is refused: loading it would call {forbidden[1]}, and weights "
        "must hold tensors only. Where you trust it, save the model's state_dict() as safetensors"
    )


def _damaged(path: Path, error: Exception) -> DamagedWeights:
    size_bytes = path.stat().st_size
    first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return DamagedWeights(
        f"weights file {path} ({size_bytes} bytes) is cut short or no checkpoint ({first_line}): "
        "download it again"
    )


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
            f"It looks like {looks_like(tensors)}. If it was trained from {model}, save that model's own "
            "state_dict(), under the names of the original"
        )


def looks_like(tensors: Mapping[str, torch.Tensor]) -> str:
    """Whose weights these are, as far as their names and widths tell."""
    position = tensors.get("image_encoder.pos_embed")
    if position is not None and position.shape[-1] in _VIT_WIDTHS:
        return f"segment_anything's {_VIT_WIDTHS[position.shape[-1]]}"
    signs = {
        "image_encoder.stem.": "a maskmill student such as nano",
        "image_encoder.trunk.stem.": "a maskmill student such as nano",
        "image_encoder.trunk.": "SAM 2",
        "image_encoder.patch_embed.seq.": "MobileSAM",
        "image_encoder.features.": "EdgeSAM",
        "vision_encoder.": "SAM saved by transformers",
        "image_encoder.": "a model with segment_anything's layout, of another size",
    }
    for prefix, name in signs.items():
        if any(key.startswith(prefix) for key in tensors):
            return name
    return "no segmenter known here"
