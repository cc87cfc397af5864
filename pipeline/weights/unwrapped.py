"""Checkpoints as trainers write them: wrappers taken off, and prefixes that all names share.

A trainer saves a state beside its epoch and optimizer ({"model_state": ..., "epoch": 3}), and puts the path
of the model inside itself before every name (`module.`, `model.`, `sam.`). Both come off without a guess:
names and shapes are held against the model's own afterwards (`check_fit`): a state that doesn't fit once they
are off didn't fit before. Pixel statistics that some forks save are SAM's own, or the file is refused.

It does not know files (weights.py), nor models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskmill.pipeline.weights.errors import WrongWeights

if TYPE_CHECKING:
    import torch

WRAPPERS = ("model", "state_dict", "model_state", "model_state_dict", "net", "network", "module", "sam")
"""Where trainers put a model's state; the first of them that holds one counts."""

_STATISTICS = {"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (58.395, 57.12, 57.375)}
_SHOWN = 6


def named_tensors(held: Any, path: Path) -> dict[str, torch.Tensor]:
    """The tensors by name in what a file held, wrappers taken off.

    Args:
        held: as it was read.
        path: the file's, for messages.

    Raises:
        WrongWeights: there are no tensors by name in it.
    """
    import torch

    state = held
    while isinstance(state, Mapping) and not _is_state(state):
        inner = next((state[name] for name in WRAPPERS if isinstance(state.get(name), Mapping)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, Mapping) or not _is_state(state):
        raise WrongWeights(
            f"weights file {path} holds no tensors by name ({_contents(held)}): load it where it was made "
            "and save the model's own state, torch.save(model.state_dict(), ...)"
        )
    return {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}


def without_prefix(tensors: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a whole model, without what stands before every name and without pixel statistics.

    Args:
        tensors: all of a model's; of a part, what its names share may be theirs.
        path: the file's, for messages.

    Raises:
        WrongWeights: pixel statistics that are not SAM's: the model was trained on other numbers.
    """
    found = dict(tensors)
    while found:
        first, dot, _ = next(iter(found)).partition(".")
        prefix = f"{first}."
        if not dot or len(found) < 2 or not all(name.startswith(prefix) for name in found):
            break
        found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    for name, usual in _STATISTICS.items():
        given = found.pop(name, None)
        values = [] if given is None else given.flatten().tolist()
        if given is not None and not _near(values, usual):
            raise WrongWeights(
                f"weights file {path} has a {name} of {values[:3]}, SAM's is {list(usual)}: the model was "
                "trained on pixels prepared in another way, and would see wrong colours here"
            )
    return found


def _is_state(found: Mapping[Any, Any]) -> bool:
    import torch

    return bool(found) and all(isinstance(value, torch.Tensor) for value in found.values())


def _near(values: list[float], usual: tuple[float, ...]) -> bool:
    return len(values) == len(usual) and all(
        abs(value - wanted) < 0.1 for value, wanted in zip(values, usual, strict=True)
    )


def _contents(held: Any) -> str:
    if not isinstance(held, Mapping):
        return f"a {type(held).__name__}"
    names = ", ".join(str(name) for name in list(held)[:_SHOWN])
    return f"it has {names}{', ...' if len(held) > _SHOWN else ''}" if held else "it is empty"
