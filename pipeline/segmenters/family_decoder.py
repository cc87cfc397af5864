"""Prompt encoders and mask decoders of SAM's heirs as segment_anything's modules, with what they have more.

So one decoder (pipeline/decoder/) serves them all. The further parts have their authors' names; forms.py says
which family has which. Weights come from a model of transformers, renamed (from_transformers.py), or from an
official file, whose names are these already (official_sam2.py).

What it does not do: run. `MaskDecoder.forward` is SAM's and knows nothing of the further parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from segment_anything.modeling.mask_decoder import MLP
from segment_anything.modeling.prompt_encoder import PositionEmbeddingRandom
from torch import Tensor, nn

from maskmill.pipeline.decoder.forms import DecoderForm
from maskmill.pipeline.segmenters.from_transformers import rename
from maskmill.pipeline.weights import weights
from maskmill.pipeline.weights.errors import WrongWeights

IMAGE_POSITIONS = "prompt_encoder.image_pe_layer.positional_encoding_gaussian_matrix"
"""The name of the image's table of positions: see `FamilyPromptEncoder`."""


@dataclass(frozen=True)
class DecoderSizes:
    """The sizes of a prompt encoder and a mask decoder; the defaults are every public model's.

    Attributes:
        grid: side of the embedding.
        input_px: side of the model's square input.
        channels: of the embedding and of tokens.
        mlp_dim, heads, depth, downsample: of the two-way transformer.
        iou_depth, iou_width: layers of the predicted-IoU head, and their width.
        outputs: masks of a prompt.
        mask_channels: of the prompt encoder's convolutions over a mask.
        early_channels: of the image encoder's early features, of SAM-HQ.
    """

    grid: int
    input_px: int
    channels: int = 256
    mlp_dim: int = 2048
    heads: int = 8
    depth: int = 2
    downsample: int = 2
    iou_depth: int = 3
    iou_width: int = 256
    outputs: int = 3
    mask_channels: int = 16
    early_channels: int = 0


class FamilyPromptEncoder(PromptEncoder):  # type: ignore[misc]
    """segment_anything's, where the image's positions may be encoded by another table than the prompts'.

    transformers keeps two; in public weights they are equal.
    """

    def __init__(self, sizes: DecoderSizes) -> None:
        grid, side = (sizes.grid, sizes.grid), (sizes.input_px, sizes.input_px)
        super().__init__(sizes.channels, grid, side, sizes.mask_channels)
        self.image_pe_layer = PositionEmbeddingRandom(sizes.channels // 2)

    def get_dense_pe(self) -> Tensor:
        """float[1, C, H, W]: the image tokens' positions."""
        positions_CHW: Tensor = self.image_pe_layer(self.image_embedding_size)
        return positions_CHW[None]


@dataclass(frozen=True)
class DecoderModules:
    """A prompt encoder and a mask decoder that belong together."""

    prompt_encoder: FamilyPromptEncoder
    mask_decoder: MaskDecoder

    def to(self, device: torch.device) -> DecoderModules:
        """The same modules, moved."""
        return DecoderModules(self.prompt_encoder.to(device), self.mask_decoder.to(device))


def build(sizes: DecoderSizes, form: DecoderForm) -> DecoderModules:
    """Modules with fresh weights."""
    transformer = TwoWayTransformer(
        depth=sizes.depth,
        embedding_dim=sizes.channels,
        mlp_dim=sizes.mlp_dim,
        num_heads=sizes.heads,
        attention_downsample_rate=sizes.downsample,
    )
    mask_decoder = MaskDecoder(
        transformer_dim=sizes.channels,
        transformer=transformer,
        num_multimask_outputs=sizes.outputs,
        iou_head_depth=sizes.iou_depth,
        iou_head_hidden_dim=sizes.iou_width,
    )
    if form.object_token:
        mask_decoder.obj_score_token = nn.Embedding(1, sizes.channels)
    if form.hq_token:
        _add_hq_parts(mask_decoder, sizes)
    return DecoderModules(FamilyPromptEncoder(sizes), mask_decoder)


def _add_hq_parts(mask_decoder: MaskDecoder, sizes: DecoderSizes) -> None:
    """SAM-HQ's token, and the convolutions that make and mix its features."""
    wide, middle, fine = sizes.channels, sizes.channels // 4, sizes.channels // 8

    def upscale(given: int, between: int) -> nn.Sequential:
        """Two transposed convolutions, to the finest grid."""
        return nn.Sequential(
            nn.ConvTranspose2d(given, between, kernel_size=2, stride=2),
            LayerNorm2d(between),
            nn.GELU(),
            nn.ConvTranspose2d(between, fine, kernel_size=2, stride=2),
        )

    mask_decoder.hf_token = nn.Embedding(1, wide)
    mask_decoder.hf_mlp = MLP(wide, wide, fine, 3)
    mask_decoder.compress_vit_feat = upscale(sizes.early_channels, wide)
    mask_decoder.embedding_encoder = upscale(wide, middle)
    mask_decoder.embedding_maskfeature = nn.Sequential(
        nn.Conv2d(fine, middle, 3, padding=1),
        LayerNorm2d(middle),
        nn.GELU(),
        nn.Conv2d(middle, fine, 3, padding=1),
    )


def of_transformers(model: Any, form: DecoderForm, folder: Path) -> DecoderModules:
    """The decoder of a model of transformers; weights are shared, not copied.

    Args:
        model: `SamHQModel`, `Sam2Model`, `EdgeTamModel` or `Sam3TrackerModel`.
        form: its family's.
        folder: of its weights, for messages.

    Raises:
        WrongWeights: a configuration that the family's public code has not.
    """
    config = model.config
    decoder, prompt = config.mask_decoder_config, config.prompt_encoder_config

    # Sizes as its config tells them
    sizes = DecoderSizes(
        grid=model.prompt_encoder.image_embedding_size[0],
        input_px=prompt.image_size,
        channels=decoder.hidden_size,
        mlp_dim=decoder.mlp_dim,
        heads=decoder.num_attention_heads,
        depth=decoder.num_hidden_layers,
        downsample=decoder.attention_downsample_rate,
        iou_depth=decoder.iou_head_depth,
        iou_width=decoder.iou_head_hidden_dim,
        outputs=decoder.num_multimask_outputs,
        mask_channels=prompt.mask_input_channels,
        early_channels=getattr(decoder, "vit_dim", 0),
    )
    _check(config, form, folder)

    # Its tensors under our names
    with torch.device("meta"):
        modules = build(sizes, form)
    named = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("vision_")}
    image_positions = named.pop("shared_image_embedding.positional_embedding")
    tensors = rename(_split_points(named), iou_head_depth=sizes.iou_depth)
    loaded = load(modules, tensors | {IMAGE_POSITIONS: image_positions}, folder)

    _take_norms(loaded.mask_decoder, model.mask_decoder)
    return loaded


def load(modules: DecoderModules, tensors: Mapping[str, Tensor], path: Path) -> DecoderModules:
    """The modules with weights under their own names; what belongs to neither is left alone.

    Args:
        modules: as `build` made them, on any device.
        tensors: by name, under `prompt_encoder.` and `mask_decoder.`.
        path: of the weights, for messages.

    Raises:
        WrongWeights: weights lack or have another shape.
    """
    for prefix, module in (
        ("prompt_encoder.", modules.prompt_encoder),
        ("mask_decoder.", modules.mask_decoder),
    ):
        expected = module.state_dict()
        own = {name: tensors[prefix + name] for name in expected if prefix + name in tensors}
        weights.check_fit(own, expected, model=f"{prefix[:-1]} of its family", path=path)
        module.load_state_dict({name: tensor.float() for name, tensor in own.items()}, assign=True)
        module.eval().requires_grad_(False)
    return modules


def _split_points(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SAM 2 keeps the kinds of points in one table, segment_anything in one a kind."""
    whole = "prompt_encoder.point_embed.weight"
    parts = dict(named)
    if whole in parts:
        table = parts.pop(whole)
        parts |= {f"prompt_encoder.point_embed.{kind}.weight": row[None] for kind, row in enumerate(table)}
    return parts


def _take_norms(ours: Any, theirs: Any) -> None:
    """Layer norms' epsilon, which no weights hold."""
    for own, other in zip(ours.transformer.layers, theirs.transformer.layers, strict=True):
        for number in range(1, 5):
            getattr(own, f"norm{number}").eps = getattr(other, f"layer_norm{number}").eps
    ours.transformer.norm_final_attn.eps = theirs.transformer.layer_norm_final_attn.eps
    ours.output_upscaling[1].eps = theirs.upscale_layer_norm.eps


def _check(config: Any, form: DecoderForm, folder: Path) -> None:
    """What segment_anything's modules have no setting for must be as it is there."""
    decoder, prompt = config.mask_decoder_config, config.prompt_encoder_config
    wanted = {
        "prompt_encoder_config.hidden_act": (prompt.hidden_act, "gelu"),
        "prompt_encoder_config.num_point_embeddings": (prompt.num_point_embeddings, 4),
    }
    if form.object_token:  # its tokens' MLPs are as deep as the transformer
        wanted["mask_decoder_config.num_hidden_layers"] = (decoder.num_hidden_layers, 2)
    else:
        wanted["mask_decoder_config.hidden_act"] = (decoder.hidden_act, "relu")
    for name, (value, known) in wanted.items():
        if value != known:
            raise WrongWeights(
                f"folder {folder}: {name}={value!r} is no model of this family known here: use {known!r}"
            )
