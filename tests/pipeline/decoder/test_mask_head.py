"""The mask head as products, against segment_anything's transposed convolutions."""

from __future__ import annotations

import pytest
import torch

from maskmill.pipeline.decoder.lowrank_steps import Scratch
from maskmill.pipeline.decoder.mask_head import MaskHead, Wanted
from tests.pipeline.conftest import build_tiny_sam

TOKENS = (1, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_products_give_the_convolutions_logits(dtype: torch.dtype) -> None:
    decoder, (height, width) = build_tiny_sam().mask_decoder, (8, 8)
    generator = torch.Generator().manual_seed(0)
    image_CHW = torch.randn(64, height, width, generator=generator)
    tokens_PMC = torch.randn(1, len(TOKENS), 64, generator=generator)
    with torch.inference_mode():
        fine_GHW = decoder.output_upscaling(image_CHW[None])[0]
        hyper = [decoder.output_hypernetworks_mlps[t](tokens_PMC[0, m]) for m, t in enumerate(TOKENS)]
        wanted = torch.einsum("mg,ghw->mhw", torch.stack(hyper), fine_GHW)

        head = MaskHead(decoder, (height, width), dtype)
        got = torch.full((len(TOKENS), 4 * height, 4 * width), torch.nan)
        maps = head.maps(image_CHW, ())
        halves = head.from_tokens(image_CHW.flatten(1).T, maps)
        scratch = Scratch(torch.empty(0, dtype=dtype))
        hyper_MG = head.hypernetworks(tokens_PMC, TOKENS)[0]
        head.logits(halves, maps, Wanted(hyper_MG, got), scratch)

    reach = float(wanted.abs().max())
    assert got.dtype == torch.float32
    assert float((got - wanted).abs().max()) <= reach * (2e-5 if dtype == torch.float32 else 0.05)
