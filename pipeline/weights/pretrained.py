"""A model as transformers' `save_pretrained` writes it: found, looked at, and loaded whole or not at all.

`find` says early and without torch whether a folder (or a hub id) holds the kind of model that a role needs;
`load_model` builds it with every weight from the file. transformers itself would fill what a file lacks with
random numbers and a warning; here that is an error. Code in a model's folder never runs.

Official checkpoints in the authors' own layout (BLIP's and Grounding DINO's .pth) are told apart by their
tensors' names and refused with the hub id that holds the same weights in this layout.
"""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from maskmill.pipeline.weights import weights
from maskmill.pipeline.weights.errors import DamagedWeights, MissingWeights, WeightsError, WrongWeights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

ModelT = TypeVar("ModelT")
ConfigT = TypeVar("ConfigT")
ProcessorT = TypeVar("ProcessorT")

_SHOWN_KEYS = 3
_OFFICIAL = (
    ("text_decoder.bert.", "BLIP's own captioning checkpoint", "Salesforce/blip-image-captioning-large"),
    ("itm_head.", "BLIP's own image-text matching checkpoint", "Salesforce/blip-itm-large-coco"),
    ("visual_encoder.", "one of BLIP's own checkpoints", "Salesforce/blip-image-captioning-large"),
    (
        "transformer.enc_out_bbox_embed.",
        "Grounding DINO's own checkpoint",
        "IDEA-Research/grounding-dino-base",
    ),
    ("backbone.0.body.", "Grounding DINO's own checkpoint", "IDEA-Research/grounding-dino-base"),
    ("image_encoder.", "a segmenter's checkpoint", None),
)
"""Signs in tensor names -> what it is, and where the same weights are in transformers' layout."""


@dataclass(frozen=True)
class Pretrained:
    """A model's folder that was looked at.

    Args:
        source: as the settings gave it.
        folder: on this machine.
        role: whose it is, for messages.
        config: its config.json.
    """

    source: str
    folder: Path
    role: str
    config: Mapping[str, Any]

    @property
    def model_type(self) -> str:
        """What its config.json calls the model."""
        return str(self.config.get("model_type", ""))


def find(source: str, *, role: str, model_types: Collection[str]) -> Pretrained:
    """The folder of a model of one of these types; on the hub, it is fetched first. Loads nothing.

    Args:
        source: path of a folder, or a hub id `owner/name[@revision]`.
        role: whose model it is, for messages.
        model_types: what config.json may call it.

    Raises:
        MissingWeights: there is no such folder or model, or no weights in it.
        WrongWeights: a model of another type, or a single file; official checkpoints are named with the cure.
        DamagedWeights: config.json is no JSON.
    """
    path = weights.locate(source, role=role)
    if path.is_file():
        raise _refused_file(path, role)
    config = _config(path, role)
    model_type = config.get("model_type")
    if model_type not in model_types:
        raise WrongWeights(
            f"{role}: {source} holds a model of type {model_type!r}, but this role needs "
            f"{' or '.join(sorted(model_types))}: see `maskmill models`"
        )
    weights.model_files(path)
    return Pretrained(source, path, role, config)


def load_model(model_class: type[ModelT], found: Pretrained, *, dtype: torch.dtype) -> ModelT:
    """The model with all its weights, on the CPU, in evaluation mode, without gradients.

    Args:
        model_class: a class of transformers with `from_pretrained`.
        found: its folder.
        dtype: of its weights.

    Raises:
        WrongWeights: the folder lacks weights of this class, or has them in another shape.
        DamagedWeights: a weights file is cut short.
        UnsafeWeights: a torch file that is a pickle with more than tensors in it.
    """
    from safetensors import SafetensorError

    maker: Any = model_class
    try:
        with _quiet():
            model, info = maker.from_pretrained(
                found.folder,
                dtype=dtype,
                local_files_only=True,
                weights_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except pickle.UnpicklingError as error:
        raise weights.unpickling(found.folder, error) from error
    except (SafetensorError, OSError, EOFError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "PytorchStreamReader" not in str(error):
            raise
        raise DamagedWeights(
            f"{found.role}: the weights in {found.folder} cannot be read whole ({_first_line(error)}): "
            "download or save them again"
        ) from error
    _check_whole(info, found, model_class.__name__)
    whole: ModelT = model.eval().requires_grad_(False)
    return whole


def load(
    model_class: type[ModelT], processor_class: type[ProcessorT], found: Pretrained, *, dtype: str
) -> tuple[ModelT, ProcessorT]:
    """A model and what prepares its inputs, from one folder; the way of every word role.

    Args:
        model_class, processor_class: of transformers.
        found: their folder.
        dtype: of the weights, as settings name it.

    Raises:
        WeightsError: as `load_model` and `load_processor`.
    """
    import torch

    model = load_model(model_class, found, dtype=getattr(torch, dtype))
    return model, load_processor(processor_class, found)


def load_config(config_class: type[ConfigT], found: Pretrained) -> ConfigT:
    """Its config.json, every default filled in.

    Raises:
        WrongWeights: settings that the class refuses.
    """
    maker: Any = config_class
    try:
        with _quiet():
            config: ConfigT = maker.from_pretrained(found.folder, local_files_only=True)
    except (ValueError, TypeError) as error:
        raise WrongWeights(
            f"{found.role}: the config.json in {found.folder} is no {config_class.__name__}: "
            f"{_first_line(error)}"
        ) from error
    return config


def load_processor(processor_class: type[ProcessorT], found: Pretrained) -> ProcessorT:
    """What prepares a model's inputs, from the same folder.

    Raises:
        MissingWeights: the folder lacks its files.
    """
    maker: Any = processor_class
    try:
        with _quiet():
            processor: ProcessorT = maker.from_pretrained(found.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise MissingWeights(
            f"{found.role}: {found.folder} has a model but not what prepares its inputs "
            f"({_first_line(error)}): save the processor there too, with save_pretrained"
        ) from error
    return processor


def processor_input(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """An image as transformers' image processors take it without a warning: in memory of its own."""
    return image if image.flags.writeable else image.copy()


def _config(folder: Path, role: str) -> Mapping[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingWeights(
            f"{role}: folder {folder} has no config.json: name a folder that save_pretrained wrote"
        ) from error
    except (ValueError, OSError) as error:
        raise DamagedWeights(f"{role}: {path} cannot be read ({error}): save or download it again") from error
    if not isinstance(config, dict):
        raise DamagedWeights(f"{role}: {path} holds no settings: save or download it again")
    return config


def _refused_file(path: Path, role: str) -> WeightsError:
    """Why a single file can't be this role's model, and what to name instead."""
    tensors = weights.read_tensors(path)
    names = [name.removeprefix("module.") for name in tensors]
    for sign, title, hub_id in _OFFICIAL:
        if any(name.startswith(sign) for name in names):
            cure = f"the same weights are on the hub: name {hub_id}" if hub_id else "see `maskmill models`"
            return WrongWeights(f"{role}: {path} is {title}, in its authors' layout; {cure}")
    return WrongWeights(
        f"{role}: {path} is a single file: name a folder that save_pretrained wrote, or a hub id; see "
        "`maskmill models`"
    )


def _check_whole(info: Mapping[str, Any], found: Pretrained, class_name: str) -> None:
    missing = sorted(info["missing_keys"])
    reshaped = sorted(str(key[0]) if isinstance(key, tuple) else str(key) for key in info["mismatched_keys"])
    findings = [
        f"{len(names)} {what} ({', '.join(names[:_SHOWN_KEYS])}{', ...' if len(names) > _SHOWN_KEYS else ''})"
        for what, names in (("missing", missing), ("of another shape", reshaped))
        if names
    ]
    if findings:
        made_for = ", ".join(found.config.get("architectures") or ["no class named"])
        raise WrongWeights(
            f"{found.role}: {found.source} does not fit {class_name}: {'; '.join(findings)}. It was saved by "
            f"{made_for}"
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and load reports: what matters is an error here."""
    from transformers.utils import logging

    console: Any = logging
    verbosity, bars = console.get_verbosity(), console.is_progress_bar_enabled()
    console.set_verbosity_error()
    console.disable_progress_bar()
    try:
        yield
    finally:
        console.set_verbosity(verbosity)
        if bars:
            console.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    told = str(error).strip()
    return told.splitlines()[0] if told else type(error).__name__
