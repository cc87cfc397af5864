"""transformers' SAM as a `segment_anything` `Sam`: the same network, its tensors renamed.

So a `facebook/sam-vit-*` folder gets the shared-image decoder and the fused encoder like a .pth of the same
model. Sizes come from config.json. The one difference kept is the layer norms' epsilon of the decoder's
transformer: transformers has 1e-6 where segment_anything has 1e-5, and each is followed for its own files.
Images are resized as segment_anything does (PIL on uint8); transformers' processor may differ by one level.

The map of names (transformers -> segment_anything, and its heirs' own code), the inverse of transformers' own
conversion scripts:

    vision_encoder.layers.N.layer_normK            image_encoder.blocks.N.normK
    vision_encoder.patch_embed.projection          image_encoder.patch_embed.proj
    vision_encoder.neck.{conv1,layer_norm1,...}    image_encoder.neck.{0,1,2,3}
    prompt_encoder.point_embed                     prompt_encoder.point_embeddings
    prompt_encoder.mask_embed.{conv1,...}          prompt_encoder.mask_downscaling.{0,1,3,4,6}
    *shared*embedding.positional_embedding         prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    mask_decoder.upscale_{conv1,layer_norm,conv2}  mask_decoder.output_upscaling.{0,1,3}
    mask_decoder.transformer.*.layer_norm*         mask_decoder.transformer.*.norm*
    mask_decoder.transformer.*.o_proj              mask_decoder.transformer.*.out_proj
    mask_decoder.transformer.*.mlp.proj_{in,out}   mask_decoder.transformer.*.mlp.lin{1,2}
    mask_decoder.{hq_token,hq_mask_mlp}            mask_decoder.{hf_token,hf_mlp}
    mask_decoder.compress_vit_{conv1,norm,conv2}   mask_decoder.compress_vit_feat.{0,1,3}
    mask_decoder.encoder_{conv1,norm,conv2}        mask_decoder.embedding_encoder.{0,1,3}
    mask_decoder.mask_{conv1,norm,conv2}           mask_decoder.embedding_maskfeature.{0,1,3}
    *.proj_in, *.layers.N, *.proj_out              *.layers.0, *.layers.N+1, *.layers.last
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from torch import Tensor, nn

from maskmill.pipeline.weights import pretrained, weights
from maskmill.pipeline.weights.errors import WrongWeights

if TYPE_CHECKING:
    from maskmill.pipeline.weights.pretrained import Pretrained

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)

_POSITIONS = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_RENAMES = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^vision_encoder\.patch_embed\.projection\.", "image_encoder.patch_embed.proj."),
        (r"^vision_encoder\.neck\.conv1\.", "image_encoder.neck.0."),
        (r"^vision_encoder\.neck\.layer_norm1\.", "image_encoder.neck.1."),
        (r"^vision_encoder\.neck\.conv2\.", "image_encoder.neck.2."),
        (r"^vision_encoder\.neck\.layer_norm2\.", "image_encoder.neck.3."),
        (r"^vision_encoder\.layers\.(\d+)\.layer_norm(\d)\.", r"image_encoder.blocks.\1.norm\2."),
        (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
        (r"^vision_encoder\.", "image_encoder."),
        (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
        (r"^prompt_encoder\.mask_embed\.conv1\.", "prompt_encoder.mask_downscaling.0."),
        (r"^prompt_encoder\.mask_embed\.layer_norm1\.", "prompt_encoder.mask_downscaling.1."),
        (r"^prompt_encoder\.mask_embed\.conv2\.", "prompt_encoder.mask_downscaling.3."),
        (r"^prompt_encoder\.mask_embed\.layer_norm2\.", "prompt_encoder.mask_downscaling.4."),
        (r"^prompt_encoder\.mask_embed\.conv3\.", "prompt_encoder.mask_downscaling.6."),
        (r"^prompt_encoder\.shared_embedding\.positional_embedding$", _POSITIONS),
        (r"^shared_image_embedding\.positional_embedding$", _POSITIONS),
        (r"^mask_decoder\.upscale_conv1\.", "mask_decoder.output_upscaling.0."),
        (r"^mask_decoder\.upscale_layer_norm\.", "mask_decoder.output_upscaling.1."),
        (r"^mask_decoder\.upscale_conv2\.", "mask_decoder.output_upscaling.3."),
        (r"^(mask_decoder\.transformer\.layers\.\d+)\.layer_norm(\d)\.", r"\1.norm\2."),
        (r"^mask_decoder\.transformer\.layer_norm_final_attn\.", "mask_decoder.transformer.norm_final_attn."),
        (r"^(mask_decoder\.transformer\..*)\.o_proj\.", r"\1.out_proj."),
        (r"^(mask_decoder\.transformer\..*\.mlp)\.proj_in\.", r"\1.lin1."),
        (r"^(mask_decoder\.transformer\..*\.mlp)\.proj_out\.", r"\1.lin2."),
        (r"^mask_decoder\.hq_token\.", "mask_decoder.hf_token."),
        *(
            (rf"^mask_decoder\.{theirs}_{part}\.", f"mask_decoder.{ours}.{place}.")
            for theirs, ours in (
                ("compress_vit", "compress_vit_feat"),
                ("encoder", "embedding_encoder"),
                ("mask", "embedding_maskfeature"),
            )
            for part, place in (("conv1", 0), ("norm", 1), ("conv2", 3))
        ),
    )
)
_MLP = re.compile(
    r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head|hq_mask_mlp))"
    r"\.(proj_in|proj_out|layers\.(\d+))\."
)


def rename(tensors: Mapping[str, Tensor], *, iou_head_depth: int = 3) -> dict[str, Tensor]:
    """transformers' SAM tensors under segment_anything's names.

    Args:
        tensors: as `SamModel.state_dict()` names them.
        iou_head_depth: layers of the predicted-IoU head; other MLPs have three.
    """
    return {_renamed(name, iou_head_depth): tensor for name, tensor in tensors.items()}


def _renamed(name: str, iou_head_depth: int) -> str:
    mlp = _MLP.match(name)
    if mlp is not None:
        depth = iou_head_depth if "iou" in mlp[1] else 3
        place = {"proj_in": 0, "proj_out": depth - 1}.get(mlp[2])
        module = mlp[1].replace("hq_mask_mlp", "hf_mlp")
        return f"{module}.layers.{int(mlp[3]) + 1 if place is None else place}.{name[mlp.end() :]}"
    for pattern, new in _RENAMES:
        name, changed = pattern.subn(new, name)
        if changed:
            break
    return name


def load_sam(found: Pretrained) -> Sam:
    """The `Sam` of a folder that `SamModel.save_pretrained` wrote, in float32 on the CPU.

    Args:
        found: a folder of model type "sam".

    Raises:
        WrongWeights: weights that don't fit its own config.json, or settings that segment_anything lacks.
        DamagedWeights, UnsafeWeights: as `weights.read_tensors`.
    """
    from transformers import SamConfig

    config: Any = pretrained.load_config(SamConfig, found)
    _check(config, found.folder)
    with torch.device("meta"):
        sam = build_sam(config)
    tensors = rename(
        weights.read_folder(found.folder), iou_head_depth=config.mask_decoder_config.iou_head_depth
    )
    weights.check_fit(tensors, sam.state_dict(), model="sam", path=found.folder)
    sam.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, assign=True)
    set_pixel_statistics(sam)
    return sam.eval()


def build_sam(config: Any) -> Sam:
    """A `Sam` of the sizes of a `SamConfig`, with fresh weights."""
    vision, prompt, decoder = config.vision_config, config.prompt_encoder_config, config.mask_decoder_config
    grid = vision.image_size // vision.patch_size
    transformer = TwoWayTransformer(
        depth=decoder.num_hidden_layers,
        embedding_dim=decoder.hidden_size,
        mlp_dim=decoder.mlp_dim,
        num_heads=decoder.num_attention_heads,
        attention_downsample_rate=decoder.attention_downsample_rate,
    )
    for layer in transformer.layers:
        for norm in (layer.norm1, layer.norm2, layer.norm3, layer.norm4):
            norm.eps = decoder.layer_norm_eps

    return Sam(
        image_encoder=build_image_encoder(vision),
        prompt_encoder=PromptEncoder(
            embed_dim=prompt.hidden_size,
            image_embedding_size=(grid, grid),
            input_image_size=(vision.image_size, vision.image_size),
            mask_in_chans=prompt.mask_input_channels,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=decoder.num_multimask_outputs,
            transformer=transformer,
            transformer_dim=decoder.hidden_size,
            iou_head_depth=decoder.iou_head_depth,
            iou_head_hidden_dim=decoder.iou_head_hidden_dim,
        ),
        pixel_mean=list(PIXEL_MEAN),
        pixel_std=list(PIXEL_STD),
    )


def build_image_encoder(vision: Any) -> ImageEncoderViT:
    """The ViT of a `SamVisionConfig` or `SamHQVisionConfig`, with fresh weights."""
    return ImageEncoderViT(
        img_size=vision.image_size,
        patch_size=vision.patch_size,
        in_chans=vision.num_channels,
        embed_dim=vision.hidden_size,
        depth=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        mlp_ratio=vision.mlp_dim / vision.hidden_size,
        out_chans=vision.output_channels,
        qkv_bias=vision.qkv_bias,
        norm_layer=partial(nn.LayerNorm, eps=vision.layer_norm_eps),
        use_abs_pos=vision.use_abs_pos,
        use_rel_pos=vision.use_rel_pos,
        window_size=vision.window_size,
        global_attn_indexes=tuple(vision.global_attn_indexes),
    )


def convert_image_encoder(vision: nn.Module, folder: Path) -> ImageEncoderViT:
    """transformers' `SamHQVisionEncoder` as segment_anything's; weights are shared, not copied.

    Args:
        vision: its configuration is the folder's.
        folder: of its weights, for messages.

    Raises:
        WrongWeights: a setting that segment_anything's encoder lacks.
    """
    config: Any = vision.config
    _hold(folder, {"vision_config.hidden_act": (config.hidden_act, "gelu")})
    if not config.global_attn_indexes:
        raise WrongWeights(
            f"folder {folder}: vision_config.global_attn_indexes is empty: SAM-HQ reads such a layer"
        )
    with torch.device("meta"):
        encoder = build_image_encoder(config)
    prefix = "image_encoder."
    named = rename({f"vision_encoder.{name}": tensor for name, tensor in vision.state_dict().items()})
    tensors = {name.removeprefix(prefix): tensor for name, tensor in named.items()}
    weights.check_fit(tensors, encoder.state_dict(), model="image encoder of sam_hq", path=folder)
    encoder.load_state_dict(tensors, assign=True)
    return encoder.eval().requires_grad_(False)


def set_pixel_statistics(sam: Sam) -> None:
    """What no checkpoint holds: mean and deviation of the pixels, for a `Sam` built on no device."""
    sam.pixel_mean = torch.tensor(PIXEL_MEAN).view(-1, 1, 1)
    sam.pixel_std = torch.tensor(PIXEL_STD).view(-1, 1, 1)


def _check(config: Any, folder: Path) -> None:
    """What segment_anything's network has no setting for must be as it is there."""
    vision, decoder = config.vision_config, config.mask_decoder_config
    wanted: dict[str, tuple[object, object]] = {
        "vision_config.hidden_act": (vision.hidden_act, "gelu"),
        "mask_decoder_config.hidden_act": (decoder.hidden_act, "relu"),
        "prompt_encoder_config.hidden_act": (config.prompt_encoder_config.hidden_act, "gelu"),
        "prompt_encoder_config.num_point_embeddings": (config.prompt_encoder_config.num_point_embeddings, 4),
    }
    _hold(folder, wanted)


def _hold(folder: Path, wanted: Mapping[str, tuple[object, object]]) -> None:
    for name, (value, known) in wanted.items():
        if value != known:
            raise WrongWeights(f"folder {folder}: {name}={value!r} is no SAM known here: use {known!r}")
