"""SAM 2 and 2.1 from their authors' own files (`sam2.1_hiera_large.pt`, ...): names mapped, sizes recognised.

    the authors' name                              here
    image_encoder.trunk.patch_embed.proj           backbone.patch_embed.projection (Sam2VisionModel)
    image_encoder.trunk.blocks.N.normK             backbone.blocks.N.layer_normK
    image_encoder.trunk.blocks.N.mlp.layers.{0,1}  backbone.blocks.N.mlp.proj_{in,out}
    image_encoder.trunk.*                          backbone.*
    image_encoder.neck.convs.N.conv                neck.convs.N
    sam_prompt_encoder.*                           prompt_encoder.*  (family_decoder.py)
    sam_mask_decoder.transformer.*.mlp.layers.{0,1}  mask_decoder.transformer.*.mlp.lin{1,2}
    sam_mask_decoder.conv_s{0,1}                   the encoder's `fine` and `middle`
    sam_mask_decoder.*                             mask_decoder.*
    no_mem_embed                                   the encoder's `no_memory_11C`

What only video needs (memory_*, obj_ptr_*, maskmem_*, no_obj_*, mask_downsample, the object score's head) is
left alone. A file does not say its heads, windows and global layers: width and depth tell which of the four
public sizes it is (`HIERAS`).

Images are prepared as `SAM2Transforms` does: resized as floats, antialiased, never rounded to bytes.
transformers' processor rounds to bytes, so a folder and a file of the same model may differ by a level.

Source: sam2 1.1.0, configs/sam2.1/*.yaml, utils/transforms.py.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskmill.pipeline.decoder.forms import SAM2, StabilityChoice
from maskmill.pipeline.segmenters import family_decoder
from maskmill.pipeline.segmenters.families import FamilyModel, FamilySegmenter, Pixels, Prepare, Sam2Encoder
from maskmill.pipeline.segmenters.family_decoder import DecoderSizes
from maskmill.pipeline.weights import weights
from maskmill.pipeline.weights.errors import WrongWeights

INPUT_PX = 1024
STRIDE = 16
PIXEL_MEAN = (0.485, 0.456, 0.406)
PIXEL_STD = (0.229, 0.224, 0.225)

FORM = dataclasses.replace(SAM2, choice=StabilityChoice(offset=0.05, threshold=0.98))
"""With what `build_sam2` adds to every configuration: a single mask is chosen by its stability."""


@dataclasses.dataclass(frozen=True)
class Hiera:
    """What a file does not say of its image encoder.

    Attributes:
        heads: of the first stage; each next one has twice as many.
        blocks: of each of the four stages.
        global_blocks: those whose attention is over the whole image.
        windows: sides of the stages' windows.
    """

    heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int] = (8, 4, 14, 7)


HIERAS = {
    "tiny": (96, Hiera(1, (1, 2, 7, 2), (5, 7, 9))),
    "small": (96, Hiera(1, (1, 2, 11, 2), (7, 10, 13))),
    "base_plus": (112, Hiera(2, (2, 3, 16, 3), (12, 16, 20))),
    "large": (144, Hiera(2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8))),
}
"""The public sizes: width of the first stage, and the rest."""

_TRUNK, _NECK = "image_encoder.trunk.", "image_encoder.neck."
_RENAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^image_encoder\.trunk\.patch_embed\.proj\.", "backbone.patch_embed.projection."),
        (r"^image_encoder\.trunk\.(blocks\.\d+)\.norm(\d)\.", r"backbone.\1.layer_norm\2."),
        (r"^image_encoder\.trunk\.(blocks\.\d+\.mlp)\.layers\.0\.", r"backbone.\1.proj_in."),
        (r"^image_encoder\.trunk\.(blocks\.\d+\.mlp)\.layers\.1\.", r"backbone.\1.proj_out."),
        (r"^image_encoder\.trunk\.", "backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"neck.convs.\1."),
        (r"^sam_mask_decoder\.(transformer\..*\.mlp)\.layers\.0\.", r"mask_decoder.\1.lin1."),
        (r"^sam_mask_decoder\.(transformer\..*\.mlp)\.layers\.1\.", r"mask_decoder.\1.lin2."),
        (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
    )
)


def rename(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The authors' tensors under the names in this file's head."""
    named: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, new in _RENAMES:
            renamed, changed = pattern.subn(new, name)
            if changed:
                break
        named[renamed] = tensor
    return named


def load_official(tensors: Mapping[str, Tensor], path: Path, *, device: str, dtype: str) -> FamilySegmenter:
    """The segmenter of an official file.

    Args:
        tensors: as the file has them, under the authors' names.
        path: of the file, for messages.
        device, dtype: see `FamilySegmenter`.

    Raises:
        WrongWeights: as `official_model`.
    """
    model = official_model(tensors, path, dtype=getattr(torch, dtype))
    return FamilySegmenter(model, device=device, dtype=dtype)


def official_model(
    tensors: Mapping[str, Tensor],
    path: Path,
    *,
    dtype: torch.dtype = torch.float32,
    hiera: Hiera | None = None,
    input_px: int = INPUT_PX,
) -> FamilyModel:
    """The parts of an official file's segmenter; weights are shared, not copied.

    Args:
        tensors: as the file has them, under the authors' names.
        path: of the file, for messages.
        dtype: of the image encoder.
        hiera: what the file does not say; None recognises the public sizes.
        input_px: side of the square input; 1024 for every public file.

    Raises:
        WrongWeights: no SAM 2, of another size than the public ones, or without some of its weights.
    """
    if _TRUNK + "pos_embed" not in tensors:
        raise WrongWeights(
            f"weights file {path} is no SAM 2: it looks like {weights.looks_like(tensors)}. "
            "Name one of its authors' files, such as sam2.1_hiera_large.pt"
        )
    named = rename(tensors)
    encoder = _encoder(named, hiera or _recognised(tensors, path), input_px, dtype, path)

    # The decoder's names are segment_anything's already
    with torch.device("meta"):
        modules = family_decoder.build(_decoder_sizes(named, input_px), FORM)
    positions = named["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    family_decoder.load(modules, named | {family_decoder.IMAGE_POSITIONS: positions}, path)
    return FamilyModel(encoder, modules, FORM, _prepare(input_px), stretches=True)


def _recognised(tensors: Mapping[str, Tensor], path: Path) -> Hiera:
    """The public size of this width and depth."""
    width = tensors[_TRUNK + "pos_embed"].shape[1]
    depth = 1 + max(int(name.split(".")[3]) for name in tensors if name.startswith(_TRUNK + "blocks."))
    for known_width, hiera in HIERAS.values():
        if (width, depth) == (known_width, sum(hiera.blocks)):
            return hiera
    raise WrongWeights(
        f"weights file {path} has an image encoder of {depth} blocks from {width} channels on, none of SAM "
        f"2's public sizes ({', '.join(HIERAS)}): convert it to a save_pretrained folder"
    )


def _encoder(
    named: Mapping[str, Tensor], hiera: Hiera, input_px: int, dtype: torch.dtype, path: Path
) -> Sam2Encoder:
    """The image encoder, by transformers' code for the same network."""
    from transformers import Sam2HieraDetConfig, Sam2VisionConfig, Sam2VisionModel

    width, background = named["backbone.pos_embed"].shape[1:3]
    widths = [width * 2**stage for stage in range(4)]
    backbone = Sam2HieraDetConfig(
        hidden_size=width,
        num_attention_heads=hiera.heads,
        image_size=[input_px, input_px],
        blocks_per_stage=list(hiera.blocks),
        embed_dim_per_stage=widths,
        num_attention_heads_per_stage=[hiera.heads * 2**stage for stage in range(4)],
        window_size_per_stage=list(hiera.windows),
        global_attention_blocks=list(hiera.global_blocks),
        window_positional_embedding_background_size=[background, background],
    )
    config = Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[input_px // stride] * 2 for stride in (4, 8, STRIDE)],
        fpn_hidden_size=named["neck.convs.0.weight"].shape[0],
    )
    with torch.device("meta"):
        vision: Any = Sam2VisionModel(config)
    own = {name: tensor for name, tensor in named.items() if name.startswith(("backbone.", "neck."))}
    weights.check_fit(own, vision.state_dict(), model="sam2's image encoder", path=path)
    vision.load_state_dict({name: tensor.float() for name, tensor in own.items()}, assign=True)

    fine, middle = (_convolution(named, f"mask_decoder.conv_s{level}", path) for level in (0, 1))
    return Sam2Encoder(vision, fine, middle, named["no_mem_embed"].float(), dtype)


def _convolution(named: Mapping[str, Tensor], name: str, path: Path) -> nn.Conv2d:
    """A convolution of single pixels, with its weights."""
    if f"{name}.weight" not in named:
        raise WrongWeights(f"weights file {path} lacks {name}: SAM 2 without finer maps is unknown here")
    weight = named[f"{name}.weight"].float()
    with torch.device("meta"):
        convolution = nn.Conv2d(weight.shape[1], weight.shape[0], 1)
    convolution.load_state_dict({"weight": weight, "bias": named[f"{name}.bias"].float()}, assign=True)
    return convolution


def _decoder_sizes(named: Mapping[str, Tensor], input_px: int) -> DecoderSizes:
    """By the tensors' shapes; heads and downsampling, which no shape tells, are every public file's."""
    mask_tokens, channels = named["mask_decoder.mask_tokens.weight"].shape
    iou = "mask_decoder.iou_prediction_head.layers."
    return DecoderSizes(
        grid=input_px // STRIDE,
        input_px=input_px,
        channels=channels,
        mlp_dim=len(named["mask_decoder.transformer.layers.0.mlp.lin1.weight"]),
        iou_depth=sum(name.startswith(iou) and name.endswith(".weight") for name in named),
        iou_width=len(named[f"{iou}0.weight"]),
        outputs=mask_tokens - 1,
        mask_channels=len(named["prompt_encoder.mask_downscaling.3.weight"]),
    )


def _prepare(input_px: int) -> Prepare:
    """`SAM2Transforms`: floats in [0, 1], resized with antialiasing, normalised."""

    def prepare(images: Sequence[Pixels], device: torch.device) -> Tensor:
        """float32[B, 3, S, S]."""
        mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
        inputs = []
        for image in images:
            pixels_HW3 = torch.from_numpy(np.array(image, copy=True)).to(device)
            pixels_13HW = pixels_HW3.permute(2, 0, 1).contiguous()[None].float().div(255)
            resized = F.interpolate(
                pixels_13HW, (input_px, input_px), mode="bilinear", align_corners=False, antialias=True
            )
            inputs.append((resized[0] - mean) / std)
        return torch.stack(inputs)

    return prepare
