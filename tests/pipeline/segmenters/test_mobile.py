"""Students with public names: each encoder restated from its paper, straight from a state dict.

The restatement reads EdgeSAM's and MobileSAM's own tensor names, so a wrong map of names cannot pass.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from maskmill.pipeline.segmenters import mobile
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.weights.errors import WrongWeights

SIDE = 64
WIDTHS = [48] * 3 + [96] * 4 + [192] * 16 + [384] * 3
"""RepViT-M1's blocks by their width, in EdgeSAM's order."""


class Public:
    """A random checkpoint in public names, and its layers by prefix."""

    def __init__(self, encoder: str) -> None:
        self.encoder = encoder
        own = mobile.build_mobile(encoder, image_size=SIDE).state_dict()
        draw = torch.Generator().manual_seed(0)
        self.tensors = {}
        for name, tensor in own.items():
            spread = 1.0 if tensor.ndim < 2 else (2 / max(1, tensor[0].numel())) ** 0.5
            value = torch.randn(tensor.shape, generator=draw) * spread * 0.5
            positive = name.endswith("running_var") or (name.endswith("weight") and tensor.ndim == 1)
            public = {"repvit_m1": edge_sam_name, "tiny_vit_5m": mobile_sam_name}[encoder](name)
            self.tensors[public] = value.abs() + 0.5 if positive else value

    def get(self, name: str) -> Tensor:
        return self.tensors[f"image_encoder.{name}"]

    def conv(self, x: Tensor, name: str, **settings: int) -> Tensor:
        """A convolution without bias and its batch norm."""
        x = F.conv2d(x, self.get(f"{name}.c.weight"), None, **settings)  # type: ignore[arg-type]
        mean, var = self.get(f"{name}.bn.running_mean"), self.get(f"{name}.bn.running_var")
        return F.batch_norm(x, mean, var, self.get(f"{name}.bn.weight"), self.get(f"{name}.bn.bias"))

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.get(f"{name}.weight"), self.get(f"{name}.bias"))

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.get(f"{name}.weight"), self.get(f"{name}.bias"))

    def neck(self, x: Tensor) -> Tensor:
        for conv, norm, padding in ((0, 1, 0), (2, 3, 1)):
            x = F.conv2d(x, self.get(f"neck.{conv}.weight"), padding=padding).permute(0, 2, 3, 1)
            weight, bias = self.get(f"neck.{norm}.weight"), self.get(f"neck.{norm}.bias")
            x = F.layer_norm(x, x.shape[-1:], weight, bias, 1e-6).permute(0, 3, 1, 2)
        return x


def edge_sam_name(name: str) -> str:
    """Ours to EdgeSAM's: the inverse of the map under test, by trying every public name."""
    return _edge_sam_names().get(name, name)


@functools.cache
def _edge_sam_names() -> dict[str, str]:
    layer = ("c.weight", *(f"bn.{value}" for value in _BN))
    mixers = [f"token_mixer.0.{conv}.{part}" for conv in ("conv", "conv1") for part in layer]
    mixers += [f"token_mixer.{i}.{part}" for i in (0, 2) for part in layer]
    mixers += [f"token_mixer.1.{fc}.{part}" for fc in ("fc1", "fc2") for part in ("weight", "bias")]
    mixers += [f"channel_mixer.m.{i}.{part}" for i in (0, 2) for part in layer]
    tried = [f"features.0.{i}.{part}" for i in (0, 2) for part in layer]
    tried += [f"features.{k}.{mixer}" for k in range(1, 27) for mixer in mixers]
    tried += ["fuse_stage2.weight", "fuse_stage3.op_list.0.weight"]
    return {_ours("repvit_m1", one): one for one in tried}


def _ours(encoder: str, public: str) -> str:
    return mobile._renamed(encoder, f"image_encoder.{public}") or ""


_BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def mobile_sam_name(name: str) -> str:
    """Ours to MobileSAM's."""
    name = name.removeprefix("image_encoder.body.") if ".body." in name else name
    name = re.sub(r"^patch_embed\.conv(\d)\.", lambda m: f"patch_embed.seq.{2 * (int(m[1]) - 1)}.", name)
    name = re.sub(r"^stages\.(\d)\.downsample\.", lambda m: f"layers.{int(m[1]) - 1}.downsample.", name)
    return re.sub(r"^stages\.(\d)\.", r"layers.\1.", name).replace(".conv.weight", ".c.weight")


def public_checkpoint(encoder: str) -> Public:
    made = Public(encoder)
    whole = ("image_encoder.", "prompt_encoder.", "mask_decoder.")
    made.tensors = {
        name if name.startswith(whole) else f"image_encoder.{name}": tensor
        for name, tensor in made.tensors.items()
    }
    return made


def edge_sam(public: Public, image: Tensor) -> Tensor:
    """RepViT-M1 with stages 2 and 3 fused. Source: Wang et al., RepViT; Zhou et al., EdgeSAM (2023)."""
    x = F.gelu(public.conv(image, "features.0.0", stride=2, padding=1))
    x = public.conv(x, "features.0.2", stride=2, padding=1)
    stage16 = x
    for index, width in enumerate(WIDTHS, start=1):
        at = f"features.{index}"
        if x.shape[1] != width:
            stage16 = x
            x = public.conv(x, f"{at}.token_mixer.0", stride=2, padding=1, groups=x.shape[1])
            x = public.conv(x, f"{at}.token_mixer.2")
        else:
            x = (
                x
                + public.conv(x, f"{at}.token_mixer.0.conv", padding=1, groups=width)
                + public.conv(x, f"{at}.token_mixer.0.conv1", groups=width)
            )
            if f"image_encoder.{at}.token_mixer.1.fc1.weight" in public.tensors:
                gate = F.relu(_conv_bias(public, x.mean((2, 3), keepdim=True), f"{at}.token_mixer.1.fc1"))
                x = x * _conv_bias(public, gate, f"{at}.token_mixer.1.fc2").sigmoid()
        inner = F.gelu(public.conv(x, f"{at}.channel_mixer.m.0"))
        x = x + public.conv(inner, f"{at}.channel_mixer.m.2")
    coarse = F.conv2d(x, public.get("fuse_stage3.op_list.0.weight"))
    up = F.interpolate(coarse, scale_factor=2, mode="bicubic", align_corners=False)
    return public.neck(F.conv2d(stage16, public.get("fuse_stage2.weight")) + up)


def _conv_bias(public: Public, x: Tensor, name: str) -> Tensor:
    return F.conv2d(x, public.get(f"{name}.weight"), public.get(f"{name}.bias"))


def mobile_sam(public: Public, image: Tensor) -> Tensor:
    """TinyViT-5M whose last stage keeps its size. Source: Wu et al., TinyViT; Zhang et al., MobileSAM."""
    x = F.gelu(public.conv(image, "patch_embed.seq.0", stride=2, padding=1))
    x = public.conv(x, "patch_embed.seq.2", stride=2, padding=1)
    for block in range(2):
        at = f"layers.0.blocks.{block}"
        inner = F.gelu(public.conv(x, f"{at}.conv1"))
        inner = F.gelu(public.conv(inner, f"{at}.conv2", padding=1, groups=inner.shape[1]))
        x = F.gelu(x + public.conv(inner, f"{at}.conv3"))
    for stage, (depth, heads, window) in enumerate(((2, 4, 7), (6, 5, 14), (2, 10, 7)), start=1):
        at = f"layers.{stage - 1}.downsample"
        x = F.gelu(public.conv(x, f"{at}.conv1"))
        x = F.gelu(public.conv(x, f"{at}.conv2", stride=1 if stage == 3 else 2, padding=1, groups=x.shape[1]))
        x = public.conv(x, f"{at}.conv3")
        for block in range(depth):
            x = _tiny_block(public, x, f"layers.{stage}.blocks.{block}", heads, window)
    return public.neck(x)


def _tiny_block(public: Public, x: Tensor, at: str, heads: int, window: int) -> Tensor:
    """Attention in windows (padded; a bias by distance), a depthwise convolution, an MLP."""
    batch, width, height, length = x.shape
    padded = F.pad(x, (0, -length % window, 0, -height % window))
    out = torch.zeros_like(padded)
    for top in range(0, padded.shape[2], window):
        for left in range(0, padded.shape[3], window):
            part = window_of(padded, top, left, window).flatten(2).transpose(1, 2)
            mixed = _attend(public, part, f"{at}.attn", heads, window)
            out[:, :, top : top + window, left : left + window] = mixed.transpose(1, 2).view(
                batch, width, window, window
            )
    x = x + out[:, :, :height, :length]
    x = public.conv(x, f"{at}.local_conv", padding=1, groups=width)
    tokens = x.flatten(2).transpose(1, 2)
    inner = public.linear(public.layer_norm(tokens, f"{at}.mlp.norm"), f"{at}.mlp.fc1")
    tokens = tokens + public.linear(F.gelu(inner), f"{at}.mlp.fc2")
    return tokens.transpose(1, 2).reshape(batch, width, height, length)


def window_of(x: Tensor, top: int, left: int, side: int) -> Tensor:
    return x[:, :, top : top + side, left : left + side]


def _attend(public: Public, tokens: Tensor, at: str, heads: int, window: int) -> Tensor:
    batch, length, width = tokens.shape
    qkv = public.linear(public.layer_norm(tokens, f"{at}.norm"), f"{at}.qkv").view(batch, length, heads, -1)
    q, k, v = (part.transpose(1, 2) for part in qkv.split(width // heads, dim=3))
    places = [(row, column) for row in range(window) for column in range(window)]
    kinds: dict[tuple[int, int], int] = {}
    table = torch.tensor(
        [[kinds.setdefault((abs(a - c), abs(b - d)), len(kinds)) for c, d in places] for a, b in places]
    )
    bias = public.get(f"{at}.attention_biases")[:, table]
    scores = q @ k.transpose(-2, -1) * (width // heads) ** -0.5 + bias
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width)
    return public.linear(mixed, f"{at}.proj")


@pytest.mark.parametrize(("encoder", "oracle"), [("repvit_m1", edge_sam), ("tiny_vit_5m", mobile_sam)])
def test_a_public_checkpoint_gives_its_encoders_numbers(encoder: str, oracle: Any) -> None:
    public = public_checkpoint(encoder)
    sam = mobile.load_mobile(encoder, public.tensors, Path("public.pth"), image_size=SIDE)
    image = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours, theirs = sam.image_encoder(image), oracle(public, image)
    assert ours.shape == (1, 256, SIDE // 16, SIDE // 16)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
    (embedding,) = SamSegmenter(sam, device="cpu").embed([torch.zeros(40, 60, 3, dtype=torch.uint8).numpy()])
    assert embedding.features_CHW.shape == ours.shape[1:]


def test_names_of_public_files_that_are_left_out() -> None:
    assert mobile._renamed("repvit_m1", "rpn_head.rpn_conv.weight") is None
    assert mobile._renamed("tiny_vit_5m", "image_encoder.head.weight") is None
    assert mobile._renamed("tiny_vit_5m", "image_encoder.layers.1.blocks.0.attn.attention_bias_idxs") is None
    assert mobile._renamed("repvit_m1", "mask_decoder.iou_token.weight") == "mask_decoder.iou_token.weight"


def test_another_models_checkpoint_is_named() -> None:
    with pytest.raises(WrongWeights, match=r"does not fit student:repvit_m1.*looks like MobileSAM"):
        tensors = {"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(1)}
        mobile.load_mobile("repvit_m1", tensors, Path("x.pt"), image_size=SIDE)
    with pytest.raises(
        ValueError, match="student encoder 'vgg' is unknown: use one of repvit_m1, tiny_vit_5m"
    ):
        mobile.build_mobile("vgg")
    with pytest.raises(ValueError, match="image_size=100: use a multiple of 32"):
        mobile.build_mobile("repvit_m1", image_size=100)
