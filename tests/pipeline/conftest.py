"""Small models with random weights whose masks pass thresholds, shared by the pipeline's tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from maskmill.pipeline.reference import adjust_heads


def build_tiny_sam(*, image_size: int = 128, seed: int = 0) -> Any:
    """A `Sam` of segment_anything's own parts, ViT encoder included, with random weights."""
    channels, patch = 64, 16
    grid = image_size // patch
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Sam(
            image_encoder=ImageEncoderViT(
                depth=2,
                embed_dim=48,
                img_size=image_size,
                mlp_ratio=2,
                norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
                num_heads=2,
                patch_size=patch,
                qkv_bias=True,
                use_rel_pos=True,
                global_attn_indexes=(1,),
                window_size=3,
                out_chans=channels,
            ),
            prompt_encoder=PromptEncoder(
                embed_dim=channels,
                image_embedding_size=(grid, grid),
                input_image_size=(image_size, image_size),
                mask_in_chans=16,
            ),
            mask_decoder=MaskDecoder(
                num_multimask_outputs=3,
                transformer=TwoWayTransformer(depth=2, embedding_dim=channels, mlp_dim=128, num_heads=4),
                transformer_dim=channels,
                iou_head_depth=3,
                iou_head_hidden_dim=32,
            ),
        ).eval()


@pytest.fixture(scope="session")
def photo() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """uint8[256, 256, 3]."""
    astronaut: Any = skimage.data.astronaut
    return np.ascontiguousarray(astronaut()[::2, ::2])


@pytest.fixture(scope="session")
def tiny_sam(photo: np.ndarray[Any, np.dtype[np.uint8]]) -> Any:
    """A random ViT `Sam` with adjusted heads; changed by nobody."""
    sam = build_tiny_sam()
    adjust_heads(sam, photo)
    return sam


@pytest.fixture(scope="session")
def make_tiny_sam() -> Callable[..., Any]:
    """Builds further ones."""
    return build_tiny_sam
