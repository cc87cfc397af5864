"""The mask head in one pass gives what the head in steps gives; where it doesn't serve, it isn't taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from maskmill.pipeline.decoder.decoder import SharedImageDecoder
from maskmill.pipeline.decoder.forms import SAM, SAM_HQ, DecoderForm
from maskmill.pipeline.decoder.fused import head as fused_head
from maskmill.pipeline.decoder.fused import head_kernels
from maskmill.pipeline.decoder.fused.head import FusedHead
from maskmill.pipeline.decoder.fused.head_kernels import FusedImage
from maskmill.pipeline.segmenters.family_decoder import DecoderSizes, _add_hq_parts
from tests.pipeline.decoder.test_decoder import Model


@pytest.mark.parametrize("finer_maps", [False, True])
@pytest.mark.parametrize("side", [5, 13, 16])  # less than a block, blocks and a rest, whole blocks
def test_equal_to_the_head_in_steps(side: int, finer_maps: bool) -> None:
    model = Model(side=side)
    form = DecoderForm(finer_maps=finer_maps)
    fused, steps = (SharedImageDecoder(model.prompt_encoder, model.mask_decoder, form=form) for _ in range(2))
    steps._fused = None
    shapes = ((8, 4 * side, 4 * side), (16, 2 * side, 2 * side)) if finer_maps else ()
    maps = [torch.randn(shape) for shape in shapes]
    prompts = model.points(5)
    keep_PM = torch.rand(5, 3) > 0.4
    keep_PM[0], keep_PM[1] = False, True

    state = fused.prepare(model.embedding, maps)
    assert isinstance(state.first_upscale, FusedImage)
    found = fused.predict(state, prompts, multimask=True).masks(keep_PM)
    wanted = steps.predict(steps.prepare(model.embedding, maps), prompts, multimask=True).masks(keep_PM)
    assert found.shape == wanted.shape and bool(found.isfinite().all())
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 3e-6


@pytest.mark.parametrize("side", [5, 40])  # 20 pixels a row; 160, more than a block
def test_sam_hqs_further_mask_is_the_one_in_steps(side: int) -> None:
    model = Model(side=side)
    _add_hq_parts(
        model.mask_decoder, DecoderSizes(grid=side, input_px=16 * side, channels=64, early_channels=24)
    )
    fused, steps = (
        SharedImageDecoder(model.prompt_encoder, model.mask_decoder, form=SAM_HQ) for _ in range(2)
    )
    steps._fused = None
    early = torch.randn(24, side, side)
    prompts, keep_PM = model.points(3), torch.tensor([[True, False, True], [False] * 3, [False, True, False]])

    found, wanted = (
        one.predict(one.prepare(model.embedding, [early]), prompts, multimask=True).masks(keep_PM)
        for one in (fused, steps)
    )
    assert fused._fused is not None
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 3e-6
    model.mask_decoder.hf_mlp.layers[-1].weight.data.zero_()
    model.mask_decoder.hf_mlp.layers[-1].bias.data.zero_()
    without = fused.predict(fused.prepare(model.embedding, [early]), prompts, multimask=True).masks(keep_PM)
    assert float((found - without).abs().max() / wanted.abs().max()) > 0.01, "it counts"


def test_gelu_is_the_exact_one() -> None:
    """Within a few roundings of float32 everywhere; what isn't a number stays so."""
    x = torch.cat([torch.linspace(-30, 30, 6_001), torch.tensor([0.0, 1e-30, -1e-30, 1e30, -1e30])])
    ours = np.array([head_kernels._gelu(np.float32(value)) for value in x.tolist()])
    exact = nn.functional.gelu(x.double()).numpy()
    assert (np.abs(ours - exact) <= 1e-6 + 3e-7 * np.abs(exact)).all()
    assert np.isnan(head_kernels._gelu(np.float32(np.nan)))


def test_where_it_does_not_serve() -> None:
    """Narrow formats and other activations go the way in steps."""
    decoder = Model().mask_decoder
    shift_C = torch.zeros(64)
    assert FusedHead.of(decoder, shift_C, SAM, torch.float32) is not None
    assert FusedHead.of(decoder, shift_C, SAM, torch.bfloat16) is None
    for place, other in ((2, nn.ReLU()), (4, nn.GELU(approximate="tanh"))):
        kept = decoder.output_upscaling[place]
        decoder.output_upscaling[place] = other
        assert FusedHead.of(decoder, shift_C, SAM, torch.float32) is None
        decoder.output_upscaling[place] = kept


def test_warm_up_leaves_nothing_to_compile() -> None:
    fused_head.warm_up()
    compiled = len(head_kernels.head.signatures)  # type: ignore[attr-defined]
    model = Model()
    decoder, state = model.ours()
    decoder.predict(state, model.points(2), multimask=True).masks(torch.ones(2, 3, dtype=torch.bool))
    assert len(head_kernels.head.signatures) == compiled  # type: ignore[attr-defined]
