"""What of a model learns, how fast, and with how little memory: frozen parts, LoRA, layer decay, drop path.

* Frozen: the encoder's weights ask for no gradient. The decoder and the prompt encoder always learn.
* LoRA: each linear layer of the encoder gets a low-rank change, W + B A, B beginning at zero; only A and B
  learn. `merged_state` folds them into W, so the result loads wherever the model did.
* Layer decay: block i of n learns with lr x decay^(n - i); what lies below the first block, slowest.
* Drop path: a block is skipped at random per image, more often the higher it lies; the kept ones are scaled.
* Checkpointing: activations of a ViT's block, and of the decoder in each round (recipe.py), are made again in
  the backward pass.

The memory of ViT-H is worked out in docs/loop.md.

Source: Hu et al., LoRA (2021), section 4.1; Bao et al., BEiT (2021), layer decay; Huang et al., Deep Networks
with Stochastic Depth (2016).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from maskmill.pipeline.settings.train import TrainSettings

_BLOCK = re.compile(r"image_encoder\.blocks\.(\d+)\.")
_STAGE = re.compile(r"image_encoder\.(?:stem|stage4|stage8|stage16|stage32)\b")
_STAGES = ("stem", "stage4", "stage8", "stage16", "stage32")


class LowRank(nn.Module):
    """A linear layer with a low-rank change: W x + B A x. W stands still."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.down = nn.Parameter(linear.weight.new_empty(rank, linear.in_features))
        self.up = nn.Parameter(linear.weight.new_zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    @property
    def weight(self) -> Tensor:
        """W + B A: for code that reads the layer's weight itself."""
        merged: Tensor = self.linear.weight + self.up @ self.down
        return merged

    @property
    def bias(self) -> Tensor | None:
        """The layer's own."""
        return self.linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """The layer's own output and the change's."""
        changed: Tensor = self.linear(x) + F.linear(F.linear(x, self.down), self.up)
        return changed


def prepare(sam: Sam, settings: TrainSettings) -> None:
    """Readies a model for training in place: what learns, LoRA, drop path, checkpointing.

    Args:
        sam: the model; on return it is in training mode.
        settings: the run's.

    Raises:
        ValueError: LoRA for an encoder without linear layers, or drop path for one without blocks.
    """
    torch.manual_seed(settings.seed)  # LoRA's start is the same in every process
    sam.train()
    sam.image_encoder.requires_grad_(settings.encoder == "all")
    if settings.encoder == "lora":
        _add_low_rank(sam.image_encoder, settings.lora_rank)
    blocks = _blocks(sam.image_encoder)
    if settings.drop_path and not blocks:
        raise ValueError(f"drop_path={settings.drop_path}: this encoder has no blocks to skip; leave it at 0")
    if settings.drop_path and settings.encoder != "frozen":
        for i, block in enumerate(blocks):
            share = settings.drop_path * i / max(1, len(blocks) - 1)
            block.register_forward_hook(partial(_drop_path, share))
    for module in sam.modules():  # statistics of a few images would spoil those of many
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    if settings.checkpointing:
        for block in blocks:
            block.forward = partial(_recomputed, block.forward)


def merged_state(sam: Sam) -> dict[str, Tensor]:
    """The model's weights under their own names, low-rank changes folded in."""
    state = dict(sam.state_dict())
    for name, module in sam.named_modules():
        if isinstance(module, LowRank):
            merged = module.weight.detach().clone()
            for part in ("down", "up", "linear.weight", "linear.bias"):
                value = state.pop(f"{name}.{part}", None)
                if part == "linear.bias" and value is not None:
                    state[f"{name}.bias"] = value
            state[f"{name}.weight"] = merged
    return state


class Average:
    """The exponential average of what learns: a teacher steadier than any of its students.

    It begins as the model does and moves fast at first: at step t at most (1 + t) / (10 + t) of it stays.

    Args:
        sam: prepared.
        stays: how much of it stays at a step, below 1.

    Source: Tarvainen and Valpola, Mean teachers are better role models (2017), section 3.
    """

    def __init__(self, sam: nn.Module, stays: float) -> None:
        self._sam, self._stays = sam, stays
        self.weights = {name: one.detach().clone() for name, one in learning(sam)}

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """Moves towards the model after a step, the first of which is 1."""
        stays = min(self._stays, (1 + step) / (10 + step))
        for name, one in learning(self._sam):
            self.weights[name].lerp_(one, 1 - stays)

    @torch.no_grad()
    def put(self) -> None:
        """Gives the model the average."""
        for name, one in learning(self._sam):
            one.copy_(self.weights[name])


def learning_rate(settings: TrainSettings, step: int) -> float:
    """Rises over the warm-up, then falls to a tenth after each of `lr_drops`.

    Args:
        settings: the run's.
        step: from 0.
    """
    rate = settings.lr * min(1.0, (step + 1) / max(1, settings.warmup))
    return rate * 0.1 ** sum(step >= share * settings.steps for share in settings.drops)


def optimiser_of(sam: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW (0.9, 0.999) with a group for each pair of learning rate scale and weight decay.

    Vectors (biases, norms) don't decay. Each group keeps its scale as `scale`; see `set_rate`.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    names = [name for name, _ in sam.named_parameters()]
    for name, parameter in sam.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            scale = settings.layer_decay ** _depth_below_top(name, names)
            groups.setdefault((scale, decay), []).append(parameter)
    listed = [
        {"params": some, "weight_decay": decay, "scale": scale} for (scale, decay), some in groups.items()
    ]
    return torch.optim.AdamW(listed, lr=settings.lr, betas=(0.9, 0.999))


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Gives each group its share of a learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["scale"]


def learning(sam: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that learn."""
    return ((name, one) for name, one in sam.named_parameters() if one.requires_grad)


def _depth_below_top(name: str, names: list[str]) -> int:
    """Layers between a parameter and the encoder's top; 0 for what is not in the encoder's layers."""
    numbers = [int(found[1]) for one in names if (found := _BLOCK.search(one))]
    if numbers:
        if found := _BLOCK.search(name):
            return max(numbers) + 1 - int(found[1])
        below = ("image_encoder.patch_embed", "image_encoder.pos_embed")
        return max(numbers) + 2 if any(one in name for one in below) else 0
    if found := _STAGE.search(name):
        return len(_STAGES) - _STAGES.index(found[0].rpartition(".")[2])
    return 0


def _blocks(encoder: nn.Module) -> list[nn.Module]:
    blocks = getattr(encoder, "blocks", None)
    return list(blocks) if isinstance(blocks, nn.ModuleList) else []


def _add_low_rank(encoder: nn.Module, rank: int) -> None:
    found = [
        (parent, name, child)
        for parent in encoder.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear)
    ]
    if not found:
        raise ValueError("encoder='lora': this encoder has no linear layer; use frozen or all")
    for parent, name, child in found:
        setattr(parent, name, LowRank(child, rank))


def _drop_path(share: float, block: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
    """A forward hook: the block's change of each image is dropped with this chance."""
    if not block.training or share == 0:
        return out
    kept = torch.rand(len(out), *[1] * (out.ndim - 1), device=out.device) >= share
    return given[0] + (out - given[0]) * kept / (1 - share)


def _recomputed(forward: Callable[..., Tensor], *given: Tensor) -> Tensor:
    made: Tensor = checkpoint(forward, *given, use_reentrant=False)
    return made
