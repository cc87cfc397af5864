"""One step of SAM's training recipe at full size: its time and peak memory, forward, backward and update.

Beside the peak stands what docs/loop.md's table ("ViT-H on an 80 GB card") gives for the model's own sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from segment_anything.build_sam import sam_model_registry

from benchmarks.gpu.clock import milliseconds, peak_gib
from benchmarks.gpu.models import fill, tiny_sam
from maskmill.pipeline.segmenters.from_transformers import set_pixel_statistics
from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train.asked import TrainImage
from maskmill.pipeline.train.recipe import image_loss
from maskmill.pipeline.train.tune import optimiser_of, prepare


def step(name: str, device: torch.device, *, tiny: bool) -> dict[str, Any]:
    """One image of 32 masks, the encoder learning, activations recomputed, bfloat16 on a GPU."""
    settings = TrainSettings(encoder="all", checkpointing=True, masks=4 if tiny else 32)
    with torch.device("meta"):
        sam = tiny_sam() if tiny else sam_model_registry[name]()
    with torch.no_grad():
        sam = fill(sam.to_empty(device=device), seed=1)
        set_pixel_statistics(sam)
    prepare(sam, settings)
    optimiser = optimiser_of(sam, settings)
    side = sam.image_encoder.img_size
    image = _image(side, settings.masks)
    pixels_13SS = torch.randn(1, 3, side, side, device=device)
    peak_gib(device)

    def one() -> None:
        """Forward, backward, update."""
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            embedding = sam.image_encoder(pixels_13SS)
            loss = image_loss(sam, embedding.float(), image, settings).loss
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    seconds = milliseconds(one, device, runs=2, warm_ups=1) / 1e3
    return {
        "seconds_an_image": round(seconds, 3),
        "masks": settings.masks,
        "peak_gib": peak_gib(device),
        "predicted_gib": round(_predicted_bytes(sam, settings.masks) / 2**30, 2),
    }


def _predicted_bytes(sam: Any, masks: int) -> float:
    """The table's lines: states, inputs of blocks, a block made again, a round made again, rounds kept."""
    encoder = sam.image_encoder
    states = 16 * sum(one.numel() for one in sam.parameters() if one.requires_grad)
    tokens, width = (encoder.img_size // 16) ** 2, encoder.pos_embed.shape[-1]
    inputs = 4 * len(encoder.blocks) * tokens * width
    block = 14 * encoder.blocks[0].attn.num_heads * tokens**2
    rounds = (4e9 + 3e9) * masks / 64 * tokens / 4096
    return float(states + inputs + block + rounds)


def _image(side: int, masks: int) -> TrainImage:
    """Rectangles."""
    rng = np.random.default_rng(0)
    masks_NSS = np.zeros((masks, side, side), bool)
    for mask_SS in masks_NSS:
        x, y = rng.integers(0, side // 2, 2)
        mask_SS[y : y + side // 3, x : x + side // 4] = True
    pixels = rng.normal(size=(3, side, side)).astype(np.float32)
    return TrainImage(0, pixels, side, side, masks_NSS, np.ones(masks, np.float32), True)
