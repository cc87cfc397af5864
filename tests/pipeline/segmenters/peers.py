"""The families' own packages with small random weights, as oracles; tests skip where they are not installed.

`pip install 'maskmill[peers]'` has them; CONTRIBUTING.md says how, since sam2 is built on the spot.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from maskmill.pipeline.segmenters.official_sam2 import Hiera

TINY_INPUT_PX = 128
TINY_HIERA = Hiera(1, (1, 1, 2, 1), (3,))
TINY_VIT: dict[str, Any] = {
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "use_rel_pos": True,
    "window_size": 3,
    "global_attn_indexes": (1,),
}


def sam2_model(input_px: int = TINY_INPUT_PX, *, tiny: bool = True, seed: int = 0) -> Any:
    """sam2's own model by its own builder; `tiny` narrows the encoder, whose blocks stay hiera-tiny's."""
    pytest.importorskip("sam2", reason="the peers extra is not installed")
    from sam2.build_sam import build_sam2

    overrides = [f"++model.image_size={input_px}"]
    if tiny:
        widths = [128, 64, 32, 16]
        overrides += [
            "++model.image_encoder.trunk.embed_dim=16",
            "++model.image_encoder.trunk.stages=[1,1,2,1]",
            "++model.image_encoder.trunk.global_att_blocks=[3]",
            f"++model.image_encoder.neck.backbone_channel_list={widths}",
        ]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = "configs/sam2.1/sam2.1_hiera_t.yaml"
        model = build_sam2(config, device="cpu", hydra_overrides_extra=overrides)
        spread(model.sam_mask_decoder)
        model.no_mem_embed.data.normal_()
    return model.eval()


def sam_hq_model(seed: int = 0) -> Any:
    """SAM-HQ by its authors' classes, of small sizes."""
    pytest.importorskip("segment_anything_hq", reason="the peers extra is not installed")
    from segment_anything_hq.modeling import (
        ImageEncoderViT,
        MaskDecoderHQ,
        PromptEncoder,
        Sam,
        TwoWayTransformer,
    )

    grid = TINY_INPUT_PX // 16
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sam = Sam(
            image_encoder=ImageEncoderViT(TINY_INPUT_PX, out_chans=64, **TINY_VIT),
            prompt_encoder=PromptEncoder(64, (grid, grid), (TINY_INPUT_PX, TINY_INPUT_PX), 16),
            mask_decoder=MaskDecoderHQ(
                num_multimask_outputs=3,
                transformer=TwoWayTransformer(depth=2, embedding_dim=64, mlp_dim=64, num_heads=4),
                transformer_dim=64,
                iou_head_hidden_dim=64,
                vit_dim=32,
            ),
        )
        spread(sam.mask_decoder)
    return sam.eval()


@torch.no_grad()
def spread(mask_decoder: Any, factor: float = 0.1) -> None:
    """Random weights large enough that masks have shapes, and look at the image where the prompt is."""
    for parameter in mask_decoder.parameters():
        parameter += factor * torch.randn_like(parameter)
    for name, module in mask_decoder.transformer.named_modules():
        if name.endswith(("token_to_image", "image_to_token")):
            module.q_proj.weight.mul_(1.7)
            module.k_proj.weight.copy_(module.q_proj.weight)
