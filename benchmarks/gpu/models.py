"""Models of full size with random weights, made on the device in seconds, whose masks pass thresholds.

`tiny` stands for each on a CPU: the same code, shapes that a test can wait for.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.build_sam import sam_model_registry
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import nn

from maskmill.pipeline.reference import adjust_heads
from maskmill.pipeline.segmenters.families import FamilySegmenter, sam2_model
from maskmill.pipeline.segmenters.from_transformers import set_pixel_statistics

Pixels = npt.NDArray[np.uint8]


@torch.no_grad()
def random_sam(name: str, device: torch.device, image: Pixels, *, tiny: bool = False) -> Sam:
    """A `Sam` in float32 on the device, heads adjusted so that 70 % of its outputs pass.

    Args:
        name: "vit_b", "vit_l", "vit_h".
        device: where it is made.
        image: that the heads are adjusted on.
        tiny: two narrow layers instead.
    """
    with torch.device("meta"):
        sam = tiny_sam() if tiny else sam_model_registry[name]()
    sam = fill(sam.to_empty(device=device), seed=len(name))
    set_pixel_statistics(sam)
    adjust_heads(sam.eval(), image)
    return sam


def fill(model: Any, *, seed: int) -> Any:
    """Random numbers for every tensor, as wide as a trained layer's; norms and buffers as they begin."""
    generator = torch.Generator(device=next(model.parameters()).device).manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if "gaussian" in name or "positional_embedding" in name:
            tensor.normal_(generator=generator)
        elif name.endswith("bias"):
            tensor.zero_()
        elif tensor.ndim == 1 and "token" not in name:
            tensor.fill_(1.0)
        else:
            width = tensor[0].numel() if tensor.ndim > 1 else len(tensor)
            tensor.normal_(std=max(width, 1) ** -0.5, generator=generator)
    for name, module in model.named_modules():
        if name.endswith(("token_to_image", "image_to_token")):  # masks that depend on the prompt
            module.k_proj.weight.copy_(module.q_proj.weight)
    return model


def tiny_sam(side: int = 128, channels: int = 128) -> Sam:
    """Two layers of a narrow ViT."""
    grid = side // 16
    return Sam(
        ImageEncoderViT(
            img_size=side,
            embed_dim=64,
            depth=2,
            num_heads=2,
            out_chans=channels,
            qkv_bias=True,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(channels, (grid, grid), (side, side), 16),
        MaskDecoder(
            transformer_dim=channels,
            transformer=TwoWayTransformer(2, channels, 4, 128),
            iou_head_hidden_dim=32,
        ),
    )


@torch.no_grad()
def random_sam2(device: torch.device, *, batched: bool, tiny: bool = False) -> FamilySegmenter:
    """SAM 2.1-L in bfloat16; `tiny` has four narrow stages. Thresholds are the caller's matter."""
    import transformers

    shape: dict[str, Any] = {"hidden_size": 144, "num_attention_heads": 2, "blocks_per_stage": [2, 6, 36, 4],
             "embed_dim_per_stage": [144, 288, 576, 1152], "num_attention_heads_per_stage": [2, 4, 8, 16],
             "window_size_per_stage": [8, 4, 16, 8], "global_attention_blocks": [23, 33, 43]}  # fmt: skip
    side = 1024
    if tiny:
        side = 128
        shape |= {"hidden_size": 16, "num_attention_heads": 1, "blocks_per_stage": [1, 1, 2, 1],
                  "embed_dim_per_stage": [16, 32, 64, 128], "num_attention_heads_per_stage": [1, 2, 4, 8],
                  "global_attention_blocks": [3]}  # fmt: skip
    widths: Any = shape["embed_dim_per_stage"]
    vision = transformers.Sam2VisionConfig(
        backbone_config=transformers.Sam2HieraDetConfig(image_size=[side, side], **shape),
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[side // stride] * 2 for stride in (4, 8, 16)],
    )
    prompt = transformers.Sam2PromptEncoderConfig(image_size=side)
    with torch.device("meta"):
        model = transformers.Sam2Model(
            transformers.Sam2Config(vision_config=vision, prompt_encoder_config=prompt)
        )
    model = fill(model.to_empty(device=device), seed=2)

    def prepare(images: Any, on: torch.device) -> torch.Tensor:
        """Stretched; the statistics matter to no time."""
        inputs = []
        for image in images:
            pixels = torch.from_numpy(np.ascontiguousarray(image)).to(on).permute(2, 0, 1)[None].float()
            inputs.append(nn.functional.interpolate(pixels / 128 - 1, (side, side), mode="bilinear")[0])
        return torch.stack(inputs)

    dtype = torch.float32 if tiny else torch.bfloat16
    made = sam2_model(model, Path("random"), prepare, dtype)
    name = str(dtype).removeprefix("torch.")
    return FamilySegmenter(made, device=str(device), dtype=name, batched=batched)
