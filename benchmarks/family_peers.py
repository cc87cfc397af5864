"""The peers of benchmarks/families.py: each family's own generator and our model on the same random weights.

A peer's model is built first; ours takes its tensors without a copy, so that adjusting the heads of one
adjusts the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from maskmill.pipeline.decoder.forms import SAM_HQ
from maskmill.pipeline.reference import adjust_family
from maskmill.pipeline.segmenters.families import FamilyModel, Pixels, SamHqEncoder, sam2_model
from maskmill.pipeline.segmenters.family_decoder import IMAGE_POSITIONS, DecoderSizes, build, load
from maskmill.pipeline.segmenters.official_sam2 import official_model
from maskmill.pipeline.settings import MaskSettings


@dataclass(frozen=True)
class Peer:
    """Both sides.

    Attributes:
        generate: the peer's masks of an image, bool[H, W] each.
        model: ours, of the same weights.
        settings: ours, to the peer's rules.
    """

    generate: Callable[[Pixels], Sequence[npt.NDArray[np.bool_]]]
    model: FamilyModel
    settings: MaskSettings


def sam2(size: str, image: Pixels, points_per_side: int) -> Peer:
    """SAM 2.1 of a size ("t", "s", "b+", "l") and its authors' generator."""
    from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
    from sam2.build_sam import build_sam2

    torch.manual_seed(0)
    theirs = build_sam2(f"configs/sam2.1/sam2.1_hiera_{size}.yaml", device="cpu")
    look_where_told(theirs.sam_mask_decoder)
    model = official_model(dict(theirs.state_dict()), Path("random.pt"))
    adjust_family(model, image, predicted_iou=0.8)
    generator = SAM2AutomaticMaskGenerator(theirs, points_per_side=points_per_side)
    settings = MaskSettings(points_per_side=points_per_side, predicted_iou=0.8)
    return Peer(lambda image: [row["segmentation"] for row in generator.generate(image)], model, settings)


def sam_hq(image: Pixels, points_per_side: int) -> Peer:
    """SAM-HQ ViT-B and its authors' generator."""
    import segment_anything
    from segment_anything_hq import SamAutomaticMaskGenerator, sam_model_registry

    from maskmill.pipeline.decoder.resize import resize
    from maskmill.pipeline.frame import Frame

    torch.manual_seed(0)
    theirs = sam_model_registry["vit_b"]().eval()
    look_where_told(theirs.mask_decoder)
    tensors = dict(theirs.state_dict())
    tensors[IMAGE_POSITIONS] = tensors["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    sizes = DecoderSizes(grid=64, input_px=1024, early_channels=768)

    vit = segment_anything.sam_model_registry["vit_b"]().image_encoder.eval()
    vit.load_state_dict(theirs.image_encoder.state_dict())

    def prepare(images: Sequence[Pixels], device: torch.device) -> torch.Tensor:
        inputs = []
        for one in images:
            frame = Frame.of_image(1024, height=one.shape[0], width=one.shape[1])
            resized = resize(one, height=frame.input_height, width=frame.input_width)
            inputs.append(theirs.preprocess(torch.tensor(resized).permute(2, 0, 1)[None]))
        return torch.cat(inputs)

    modules = load(build(sizes, SAM_HQ), tensors, Path("random.pth"))
    model = FamilyModel(SamHqEncoder(vit, torch.float32), modules, SAM_HQ, prepare, stretches=False)
    adjust_family(model, image)
    generator = SamAutomaticMaskGenerator(theirs, points_per_side=points_per_side)
    settings = MaskSettings(points_per_side=points_per_side, outputs="best")
    return Peer(lambda image: [row["segmentation"] for row in generator.generate(image)], model, settings)


def tracked(name: str, side: int, image: Pixels, points_per_side: int) -> Peer:
    """EdgeTAM or SAM 3's tracker, as transformers builds it by default, and its `mask-generation` pipeline.

    Args:
        name: "EdgeTam" or "Sam3Tracker".
        side: of the model's input.
        image: that the heads are adjusted on.
        points_per_side: of the grid.
    """
    import transformers
    from PIL import Image
    from transformers.pipelines.mask_generation import MaskGenerationPipeline

    torch.manual_seed(0)
    config: Any = getattr(transformers, f"{name}Config")()
    if name == "EdgeTam":  # its configuration's own default is no RepViT
        backbone = transformers.TimmWrapperConfig(
            architecture="repvit_m1",
            model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
            do_pooling=False,
        )
        config = transformers.EdgeTamConfig(
            vision_config=transformers.EdgeTamVisionConfig(backbone_config=backbone)
        )
    theirs: Any = getattr(transformers, f"{name}Model")(config).eval()
    look_where_told(theirs.mask_decoder)
    kind = transformers.Sam2ImageProcessor if name == "EdgeTam" else transformers.Sam3ImageProcessor
    processor: Any = kind(size={"height": side, "width": side})

    def prepare(images: Sequence[Pixels], device: torch.device) -> torch.Tensor:
        pixels_B3HW: torch.Tensor = processor(images=list(images), return_tensors="pt")["pixel_values"]
        return pixels_B3HW.to(device)

    processor.generate_crop_boxes = partial(_points_over_the_whole_image, processor.generate_crop_boxes)
    model = sam2_model(theirs, Path("random"), prepare, torch.float32)
    adjust_family(model, image, predicted_iou=0.8)
    peer: Any = MaskGenerationPipeline
    pipeline = peer(model=theirs, image_processor=processor)
    asked = {"points_per_crop": points_per_side, "pred_iou_thresh": 0.8, "stability_score_thresh": 0.95}

    def generate(image: Pixels) -> Sequence[npt.NDArray[np.bool_]]:
        found = pipeline(Image.fromarray(image), points_per_batch=64, **asked)
        return [np.asarray(mask, bool) for mask in found["masks"]]

    settings = MaskSettings(points_per_side=points_per_side, predicted_iou=0.8)
    return Peer(generate, model, settings)


def _points_over_the_whole_image(crop_boxes: Callable[..., Any], image: Any, *given: Any) -> Any:
    """transformers' grid, stretched as its processor stretches the image.

    Its points lie as if the image kept its shape: of 640 x 480 only the upper three quarters are asked.
    """
    boxes, points, images, labels = crop_boxes(image, *given)
    points[..., 0] *= max(image.size) / image.width
    points[..., 1] *= max(image.size) / image.height
    return boxes, points, images, labels


@torch.no_grad()
def look_where_told(mask_decoder: Any) -> None:
    """Random weights whose masks depend on the prompt: queries and keys are projected alike."""
    for name, module in mask_decoder.transformer.named_modules():
        if name.endswith(("token_to_image", "image_to_token")) and hasattr(module, "q_proj"):
            module.q_proj.weight.mul_(1.7)
            module.k_proj.weight.copy_(module.q_proj.weight)


PEERS: dict[str, Callable[[Pixels, int], Peer]] = {
    "sam2_tiny": lambda image, points: sam2("t", image, points),
    "sam2_base_plus": lambda image, points: sam2("b+", image, points),
    "sam_hq_b": sam_hq,
    "edgetam": lambda image, points: tracked("EdgeTam", 1024, image, points),
    "sam3": lambda image, points: tracked("Sam3Tracker", 1008, image, points),
}
