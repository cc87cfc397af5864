"""The fused image encoder against `segment_anything`'s ImageEncoderViT, random weights."""

from __future__ import annotations

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from maskmill.pipeline.decoder.encoder import FusedImageEncoder, fuse_attention


def vit(**options: bool | int) -> ImageEncoderViT:
    """A ViT of 8 x 8 tokens: a windowed layer whose windows need padding, and a global one."""
    torch.manual_seed(0)
    shape: dict[str, bool | int] = {"window_size": 3, "use_rel_pos": True, **options}
    encoder = ImageEncoderViT(
        img_size=64,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=4,
        out_chans=16,
        global_attn_indexes=(1,),
        **shape,
    )
    for parameter in encoder.parameters():
        parameter.data = parameter + 0.2 * torch.randn_like(parameter)
    return encoder.eval()


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def relative_error(ours: Tensor, reference: Tensor) -> float:
    assert ours.shape == reference.shape
    assert ours.dtype == reference.dtype
    return float((ours - reference).abs().max() / reference.abs().max())


@pytest.mark.parametrize("block_numbers", [None, 1, 1000, 5000])
@torch.no_grad()
def test_any_block_size_equals_the_reference(block_numbers: int | None) -> None:
    encoder, inputs = vit(), images()
    fused = FusedImageEncoder(encoder, block_numbers=block_numbers)
    assert relative_error(fused(inputs), encoder(inputs)) < 1e-5


@pytest.mark.parametrize("options", [{"use_rel_pos": False}, {"use_abs_pos": False}, {"window_size": 0}])
@torch.no_grad()
def test_other_shapes_equal_the_reference(options: dict[str, bool | int]) -> None:
    encoder, inputs = vit(**options), images(1)
    assert relative_error(fuse_attention(encoder)(inputs), encoder(inputs)) < 1e-5


@torch.no_grad()
def test_relative_positions_matter_in_this_test() -> None:
    encoder, inputs = vit(), images(1)
    before = fuse_attention(encoder)(inputs)
    encoder.blocks[1].attn.rel_pos_h.zero_()
    assert relative_error(fuse_attention(encoder)(inputs), before) > 1e-3


@torch.no_grad()
def test_bfloat16_is_as_far_from_float32_as_the_reference_is() -> None:
    encoder, inputs = vit(), images()
    exact = encoder(inputs)
    encoder.to(torch.bfloat16)
    reference_error = relative_error(encoder(inputs.bfloat16()).float(), exact)
    assert relative_error(fuse_attention(encoder)(inputs.bfloat16()).float(), exact) < 1.5 * reference_error


def test_it_leaves_the_weights_and_the_input_alone() -> None:
    encoder, inputs = vit(), images(1)
    before, kept = inputs.clone(), [parameter.clone() for parameter in encoder.parameters()]
    fused = fuse_attention(encoder)
    fused(inputs)
    assert torch.equal(inputs, before)
    assert all(torch.equal(a, b) for a, b in zip(kept, encoder.parameters(), strict=True))
    assert isinstance(fused, FusedImageEncoder)
    assert fused.img_size == 64


def test_another_encoder_is_returned_as_it_is() -> None:
    encoder = nn.Conv2d(3, 16, 8, 8)
    assert fuse_attention(encoder) is encoder
