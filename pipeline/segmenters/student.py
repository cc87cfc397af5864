"""nano and its kin: a small convolutional encoder under segment_anything's own prompt encoder and mask
decoder.

A student is a real `segment_anything.modeling.Sam`, so `SamPredictor` and `SamAutomaticMaskGenerator` work
on it as they are. The encoder sees the padded square input and gives one embedding at stride 8: ConvNeXt
blocks at strides 4, 8 and 16, blocks of self-attention at stride 32 (global context), fused top-down into
stride 8. Layer norms only: nothing depends on the batch. Weights are one safetensors file whose metadata
holds the format, its version and the `StudentConfig`.

Shapes: B images, C channels, H x W positions.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer
from segment_anything.modeling.transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

FORMAT = "maskmill-student"
FORMAT_VERSION = "1"
EMBEDDING_STRIDE = 8


@dataclass(frozen=True)
class StudentConfig:
    """The shape of a student.

    Attributes:
        image_size: side of the square input, pixels; a multiple of 32.
        widths: channels at strides 4, 8, 16 and 32.
        depths: blocks at strides 4, 8, 16 (ConvNeXt) and 32 (attention).
        embed_dim: channels of the embedding, prompts and decoder.
        decoder_heads: attention heads of the decoder; must divide embed_dim / 2.
        decoder_mlp_dim: hidden width of the decoder's token MLPs.
        iou_hidden_dim: hidden width of the predicted-IoU head.
    """

    image_size: int = 320
    widths: tuple[int, int, int, int] = field(default=(48, 96, 192, 192))
    depths: tuple[int, int, int, int] = field(default=(1, 2, 4, 2))
    embed_dim: int = 128
    decoder_heads: int = 4
    decoder_mlp_dim: int = 512
    iou_hidden_dim: int = 128

    def __post_init__(self) -> None:
        if self.image_size < 32 or self.image_size % 32:
            raise ValueError(f"image_size {self.image_size}: use a multiple of 32, at least 32")
        if len(self.widths) != 4 or len(self.depths) != 4 or min(self.widths) < 8 or min(self.depths) < 0:
            raise ValueError(
                f"widths {self.widths}, depths {self.depths}: use four widths of 8 or more and four depths"
            )
        if self.embed_dim % 8 or (self.embed_dim // 2) % self.decoder_heads:
            raise ValueError(
                f"embed_dim {self.embed_dim} with {self.decoder_heads} heads: use a multiple of 8 whose half "
                "the heads divide"
            )


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of B x C x H x W; free of copies when memory is channels-last."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvBlock(nn.Module):
    """ConvNeXt block: 7x7 depthwise convolution, layer norm, a two-layer MLP on each position, residual."""

    def __init__(self, width: int, expansion: int = 3) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, expansion * width)
        self.narrow = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BHWC = self.norm(self.mix(x_BCHW).permute(0, 2, 3, 1))
        y_BHWC = self.narrow(F.gelu(self.widen(y_BHWC))) * self.scale
        out_BCHW: Tensor = x_BCHW + y_BHWC.permute(0, 3, 1, 2)
        return out_BCHW


class AttentionBlock(nn.Module):
    """Transformer block over all positions; a 3x3 depthwise convolution tells it where things are."""

    def __init__(self, width: int, head_width: int = 32) -> None:
        super().__init__()
        self.heads = max(1, width // head_width)
        self.place = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 3 * width)
        self.narrow = nn.Linear(3 * width, width)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        batch, width, height, length = x_BCHW.shape
        x_BNC = (x_BCHW + self.place(x_BCHW)).flatten(2).transpose(1, 2)
        qkv = self.qkv(self.norm1(x_BNC)).view(batch, height * length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, height * length, width)
        x_BNC = x_BNC + self.out(mixed)
        x_BNC = x_BNC + self.narrow(F.gelu(self.widen(self.norm2(x_BNC))))
        out_BCHW: Tensor = x_BNC.transpose(1, 2).view(batch, width, height, length)
        return out_BCHW


def _down(width_in: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(ChannelNorm(width_in), nn.Conv2d(width_in, width_out, 2, stride=2))


class StudentEncoder(nn.Module):
    """Image to embedding: B x 3 x S x S, normalised, to B x embed_dim x S/8 x S/8."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.img_size = config.image_size
        w4, w8, w16, w32 = config.widths
        d4, d8, d16, d32 = config.depths
        self.stem = nn.Sequential(
            nn.Conv2d(3, w4 // 2, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(w4 // 2, w4, 3, stride=2, padding=1),
        )
        self.stage4 = nn.Sequential(ChannelNorm(w4), *(ConvBlock(w4) for _ in range(d4)))
        self.stage8 = nn.Sequential(_down(w4, w8), *(ConvBlock(w8) for _ in range(d8)))
        self.stage16 = nn.Sequential(_down(w8, w16), *(ConvBlock(w16) for _ in range(d16)))
        self.stage32 = nn.Sequential(_down(w16, w32), *(AttentionBlock(w32) for _ in range(d32)))
        dim = config.embed_dim
        self.from4 = nn.Conv2d(w4, dim, 2, stride=2)
        self.from8, self.from16, self.from32 = (
            nn.Conv2d(w8, dim, 1),
            nn.Conv2d(w16, dim, 1),
            nn.Conv2d(w32, dim, 1),
        )
        self.neck = nn.Sequential(ConvBlock(dim), ConvBlock(dim), ChannelNorm(dim))

    def forward(self, image_B3HW: Tensor) -> Tensor:
        x4 = self.stage4(self.stem(image_B3HW.contiguous(memory_format=torch.channels_last)))
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        x32 = self.stage32(x16)
        top = self.from16(x16) + F.interpolate(self.from32(x32), scale_factor=2.0, mode="nearest")
        fused = self.from4(x4) + self.from8(x8) + F.interpolate(top, scale_factor=2.0, mode="bilinear")
        embedding: Tensor = self.neck(fused)
        return embedding


def build_student(config: StudentConfig | None = None) -> Sam:
    """A student with fresh weights, in evaluation mode.

    Args:
        config: its shape; nano's by default.

    Returns:
        A `Sam` whose embedding has stride 8 and whose low-resolution masks have stride 2.
    """
    config = config or StudentConfig()
    grid = config.image_size // EMBEDDING_STRIDE
    dim = config.embed_dim
    sam = Sam(
        image_encoder=StudentEncoder(config),
        prompt_encoder=PromptEncoder(
            embed_dim=dim,
            image_embedding_size=(grid, grid),
            input_image_size=(config.image_size, config.image_size),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            num_multimask_outputs=3,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=dim, mlp_dim=config.decoder_mlp_dim, num_heads=config.decoder_heads
            ),
            transformer_dim=dim,
            iou_head_depth=3,
            iou_head_hidden_dim=config.iou_hidden_dim,
        ),
    )
    _look_where_told(sam)
    return sam.eval()


@torch.no_grad()
def _look_where_told(sam: Sam) -> None:
    """Begin with cross attention that joins tokens and positions of like encoding.

    With query and key projections alike, q k is a kernel of the distance between a point and a position, so
    masks depend on the
    point from the first step. Independent projections spend a thousand steps on an answer that ignores it.
    """
    for name, module in sam.mask_decoder.transformer.named_modules():
        if isinstance(module, Attention) and "image" in name:
            module.q_proj.weight.mul_(1.7)
            module.k_proj.weight.copy_(module.q_proj.weight)


def save_student(sam: Sam, config: StudentConfig, path: Path, *, half: bool = False) -> None:
    """Write a student's weights and shape to one safetensors file, through a temporary name.

    Args:
        sam: what `build_student(config)` made.
        config: its shape.
        path: file to write.
        half: store float16, at half the size; loading gives float32 again.
    """
    dtype = torch.float16 if half else torch.float32
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in sam.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "config": json.dumps(asdict(config), sort_keys=True),
    }
    partial = path.with_name(path.name + ".partial")
    save_file(tensors, partial, metadata=metadata)
    partial.replace(path)


def load_student(path: Path) -> Sam:
    """Read a student written by `save_student`.

    Args:
        path: a safetensors file.

    Returns:
        The student in float32, on the CPU, in evaluation mode.

    Raises:
        ValueError: no such file, not safetensors or cut short, not a student, or of a later version.
    """
    metadata, tensors = _read(path)
    sam = build_student(_config_of(metadata, path))
    try:
        sam.load_state_dict(tensors, strict=True)
    except RuntimeError as exc:
        raise ValueError(f"{path} does not hold the weights its own config asks for: {exc}") from exc
    return sam


def stored_config(path: Path) -> StudentConfig:
    """The shape of a student written by `save_student`; errors as `load_student`'s."""
    return _config_of(_read(path).metadata, path)


def load_nano() -> Sam:
    """The small segmenter that ships with maskmill.

    Returns:
        nano in float32, on the CPU, in evaluation mode.

    Raises:
        ValueError: the installed weights are missing or damaged.
    """
    with as_file(files("maskmill.pipeline.segmenters") / "nano.safetensors") as path:
        return load_student(path)


class _Stored(NamedTuple):
    metadata: dict[str, str]
    tensors: dict[str, Tensor]


def _read(path: Path) -> _Stored:
    if not path.is_file():
        raise ValueError(f"no student weights at {path}; give a file written by save_student")
    try:
        with safe_open(path, framework="pt") as stored:
            names = list(stored.keys())
            return _Stored(stored.metadata() or {}, {name: stored.get_tensor(name).float() for name in names})
    except (SafetensorError, OSError) as exc:
        raise ValueError(f"{path} is not a whole safetensors file ({exc}); fetch or export it again") from exc


def _config_of(metadata: dict[str, str], path: Path) -> StudentConfig:
    if metadata.get("format") != FORMAT:
        raise ValueError(
            f"{path} holds other weights than a student's (format {metadata.get('format')!r}, not {FORMAT!r})"
        )
    if metadata.get("version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has student version {metadata.get('version')!r}; this code reads {FORMAT_VERSION!r}"
        )
    stored: dict[str, Any] = json.loads(metadata["config"])
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}
    return StudentConfig(**values)
