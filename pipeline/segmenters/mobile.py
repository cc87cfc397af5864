"""Students with timm encoders under SAM's own decoder: EdgeSAM's shape and MobileSAM's.

`repvit_m1` is EdgeSAM's encoder: RepViT-M1 whose stages at strides 16 and 32 are fused (1x1 convolutions, the
coarser upsampled bicubically) before SAM's neck. `tiny_vit_5m` is MobileSAM's: TinyViT-5M whose last stage
keeps stride 16, then SAM's neck. The encoders are timm's; everything else is segment_anything's, so the
shared-image decoder applies as it is.

Public checkpoints load by a map of names, checked strictly: every tensor of the model comes from the file.

    EdgeSAM (edge_sam.pth, edge_sam_3x.pth)       here, after image_encoder.body.
    features.0.{0,2}                              stem.{conv1,conv2}
    features.K of a stage                         stages.S.blocks.B; the last one before a halving:
                                                  stages.S+1.downsample.pre_block
      token_mixer.0.{conv,conv1}                    token_mixer.{conv,conv1}
      token_mixer.1                                 se
      channel_mixer.m.{0,2}                         channel_mixer.{conv1,conv2}
    features.K between stages                     stages.S.downsample
      token_mixer.{0,2}                             {spatial_downsample,channel_downsample}
      channel_mixer.m.{0,2}                         ffn.{conv1,conv2}
    fuse_stage2, fuse_stage3.op_list.0, neck      image_encoder.{fuse16,fuse32,neck}
    fpn, rpn_head (only with an RPN)              left out

    MobileSAM (mobile_sam.pt)                     here, after image_encoder.body.
    patch_embed.seq.{0,2}                         patch_embed.{conv1,conv2}
    layers.S.blocks                               stages.S.blocks
    layers.S.downsample                           stages.S+1.downsample
    *.c.weight                                    *.conv.weight
    norm_head, head, *attention_bias_idxs         left out (classifier; a table computed anew)
    neck                                          image_encoder.neck

What it doesn't do: choose thresholds. EdgeSAM's predicted IoU was not distilled; its authors rank masks by
stability instead, so try masks.predicted_iou = 0 with it.

Shapes: B images, C channels, H x W positions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.common import LayerNorm2d
from torch import Tensor, nn
from torch.nn import functional as F

from maskmill.pipeline.settings.families import STUDENT_ENCODERS
from maskmill.pipeline.weights import weights
from maskmill.pipeline.weights.errors import MissingWeights

EMBED_DIM = 256
STRIDE = 16

_REPVIT_DEPTHS = (2, 2, 14, 2)
"""Blocks of RepViT-M1's stages in timm's count: one more of each stage but the last leads the next one."""


class RepVitEncoder(nn.Module):
    """RepViT-M1 with fused strides 16 and 32: B x 3 x S x S, normalised, to B x 256 x S/16 x S/16."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.img_size = image_size
        self.body = _timm("repvit_m1")
        del self.body.head
        self.fuse16 = nn.Conv2d(192, EMBED_DIM, 1, bias=False)
        self.fuse32 = nn.Conv2d(384, EMBED_DIM, 1, bias=False)
        self.neck = _neck(EMBED_DIM)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """float[B, 256, S/16, S/16] of a normalised float[B, 3, S, S]."""
        x = self.body.stem(image_B3HW)
        for stage in self.body.stages[:3]:
            x = stage(x)
        last = self.body.stages[3]
        x16 = last.downsample.pre_block(x)  # EdgeSAM counts this block to the stage before
        x = last.downsample.channel_downsample(last.downsample.spatial_downsample(x16))
        x32 = last.blocks(x + last.downsample.ffn(x))
        up = F.interpolate(self.fuse32(x32), scale_factor=2, mode="bicubic", align_corners=False)
        embedding_BCHW: Tensor = self.neck(self.fuse16(x16) + up)
        return embedding_BCHW


class TinyVitEncoder(nn.Module):
    """TinyViT-5M without its last halving: B x 3 x S x S, normalised, to B x 256 x S/16 x S/16."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.img_size = image_size
        self.body = _timm("tiny_vit_5m_224")
        del self.body.head
        self.body.stages[3].downsample.conv2.conv.stride = (1, 1)
        self.neck = _neck(320)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """float[B, 256, S/16, S/16] of a normalised float[B, 3, S, S]."""
        embedding_BCHW: Tensor = self.neck(self.body.stages(self.body.patch_embed(image_B3HW)))
        return embedding_BCHW


_ENCODERS: dict[str, Callable[[int], nn.Module]] = {
    "repvit_m1": RepVitEncoder,
    "tiny_vit_5m": TinyVitEncoder,
}


def build_mobile(encoder: str, *, image_size: int = 1024) -> Sam:
    """A student with fresh weights, in evaluation mode.

    Args:
        encoder: one of `maskmill.pipeline.settings.families.STUDENT_ENCODERS`.
        image_size: side of the square input in px, a multiple of 32.

    Raises:
        ValueError: another encoder or side.
        MissingWeights: timm is not installed.
    """
    if encoder not in STUDENT_ENCODERS:
        raise ValueError(f"student encoder {encoder!r} is unknown: use one of {', '.join(STUDENT_ENCODERS)}")
    if image_size < 32 or image_size % 32:
        raise ValueError(f"image_size={image_size}: use a multiple of 32")

    grid = image_size // STRIDE
    sam = Sam(
        image_encoder=_ENCODERS[encoder](image_size),
        prompt_encoder=PromptEncoder(
            embed_dim=EMBED_DIM,
            image_embedding_size=(grid, grid),
            input_image_size=(image_size, image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(depth=2, embedding_dim=EMBED_DIM, mlp_dim=2048, num_heads=8),
            transformer_dim=EMBED_DIM,
            iou_head_depth=3,
            iou_head_hidden_dim=256,
        ),
    )
    return sam.eval()


def load_mobile(encoder: str, tensors: Mapping[str, Tensor], path: Path, *, image_size: int = 1024) -> Sam:
    """A student with the weights of a public checkpoint, or of `build_mobile(...).state_dict()`.

    Args:
        encoder: one of `maskmill.pipeline.settings.families.STUDENT_ENCODERS`.
        tensors: as read from `path`.
        path: for messages.
        image_size: side of the square input in px.

    Raises:
        WrongWeights: they don't fit.
        ValueError, MissingWeights: as `build_mobile`.
    """
    sam = build_mobile(encoder, image_size=image_size)
    expected = sam.state_dict()
    renamed = {
        new: tensor for name, tensor in tensors.items() if (new := _renamed(encoder, name)) is not None
    }
    for name, tensor in expected.items():  # batch norms count their steps: not every file keeps that
        if name.endswith("num_batches_tracked"):
            renamed.setdefault(name, tensor)
    weights.check_fit(renamed, expected, model=f"student:{encoder}", path=path)
    sam.load_state_dict(renamed)
    return sam.float()


def _renamed(encoder: str, name: str) -> str | None:
    """The name here of a public checkpoint's tensor; None for one that is left out."""
    if name.startswith(("fpn.", "rpn_head.")):
        return None
    prefix, dot, rest = name.partition(".")
    if prefix != "image_encoder" or rest.startswith("body."):
        return name
    new = _from_edge_sam(rest) if encoder == "repvit_m1" else _from_mobile_sam(rest)
    return None if new is None else f"{prefix}{dot}{new}"


def _from_mobile_sam(name: str) -> str | None:
    if name.startswith(("norm_head.", "head.")) or name.endswith((".attention_bias_idxs", ".ab")):
        return None
    name = re.sub(r"^patch_embed\.seq\.(\d)\.", lambda m: f"patch_embed.conv{int(m[1]) // 2 + 1}.", name)
    name = re.sub(r"^layers\.(\d)\.downsample\.", lambda m: f"stages.{int(m[1]) + 1}.downsample.", name)
    name = re.sub(r"^layers\.(\d)\.", r"stages.\1.", name)
    name = re.sub(r"\.c\.weight$", ".conv.weight", name)
    return name if name.startswith("neck.") else f"body.{name}"


def _from_edge_sam(name: str) -> str:
    name = name.replace("fuse_stage2.", "fuse16.").replace("fuse_stage3.op_list.0.", "fuse32.")
    feature = re.match(r"features\.(\d+)\.", name)
    if feature is None:
        return name

    index, rest = int(feature[1]), name[feature.end() :]
    if index == 0:
        return f"body.stem.{'conv1' if rest.startswith('0.') else 'conv2'}.{rest.partition('.')[2]}"
    place, is_downsample = _repvit_places()[index - 1]

    # timm's names within a block
    renames = (
        (r"^token_mixer\.0\.", "spatial_downsample."),
        (r"^token_mixer\.2\.", "channel_downsample."),
        (r"^channel_mixer\.m\.0\.", "ffn.conv1."),
        (r"^channel_mixer\.m\.2\.", "ffn.conv2."),
    )
    if not is_downsample:
        renames = (
            (r"^token_mixer\.0\.", "token_mixer."),
            (r"^token_mixer\.1\.", "se."),
            (r"^channel_mixer\.m\.0\.", "channel_mixer.conv1."),
            (r"^channel_mixer\.m\.2\.", "channel_mixer.conv2."),
        )

    for pattern, new in renames:
        rest, changed = re.subn(pattern, new, rest)
        if changed:
            break
    return f"body.{place}.{rest}"


def _repvit_places() -> list[tuple[str, bool]]:
    """Where timm keeps each of EdgeSAM's blocks, in order, and whether it halves the picture."""
    places = []
    for stage, depth in enumerate(_REPVIT_DEPTHS):
        if stage:
            places += [(f"stages.{stage}.downsample.pre_block", False), (f"stages.{stage}.downsample", True)]
        places += [(f"stages.{stage}.blocks.{block}", False) for block in range(depth)]
    return places


def _neck(width: int) -> nn.Sequential:
    """SAM's neck."""
    return nn.Sequential(
        nn.Conv2d(width, EMBED_DIM, 1, bias=False),
        LayerNorm2d(EMBED_DIM),
        nn.Conv2d(EMBED_DIM, EMBED_DIM, 3, padding=1, bias=False),
        LayerNorm2d(EMBED_DIM),
    )


def _timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingWeights(
            "students with RepViT or TinyViT encoders need timm: pip install 'maskmill[timm]'"
        ) from error
    return timm.create_model(name, pretrained=False)
