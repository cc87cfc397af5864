"""nano and its kin: a small convolutional encoder under segment_anything's own prompt encoder and mask
decoder.

A student is a real `segment_anything.modeling.Sam`, so `SamPredictor` and `SamAutomaticMaskGenerator` work
on it as they are. The encoder sees the padded square input and gives one embedding at stride 8; there are two
of them: `student_encoder.py`'s own blocks, and `efficientnet.py`'s pretrained trunk. Nothing depends on the
batch. Weights are one safetensors file whose metadata holds the format, its version and the `StudentConfig`.
Files of version 1 know the first encoder only and no calibration, and are read as such.
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
from torch import Tensor

from maskmill.pipeline.segmenters.calibrated import CalibratedHead
from maskmill.pipeline.segmenters.efficientnet import Lite0Encoder
from maskmill.pipeline.segmenters.student_encoder import StudentEncoder

FORMAT = "maskmill-student"
FORMAT_VERSION = "2"
READ_VERSIONS = ("1", FORMAT_VERSION)
ENCODERS = ("blocks", "efficientnet_lite0")
EMBEDDING_STRIDE = 8


@dataclass(frozen=True)
class StudentConfig:
    """The shape of a student.

    Attributes:
        image_size: side of the square input, pixels; a multiple of 32.
        widths: channels at strides 4, 8, 16 and 32, of the encoder "blocks".
        depths: blocks at strides 4, 8, 16 (ConvNeXt) and 32 (attention), of the encoder "blocks".
        embed_dim: channels of the embedding, prompts and decoder.
        decoder_heads: attention heads of the decoder; must divide embed_dim / 2.
        decoder_mlp_dim: hidden width of the decoder's token MLPs.
        iou_hidden_dim: hidden width of the predicted-IoU head.
        encoder: one of `ENCODERS`.
        iou_knots: knots of the curve that corrects predicted IoU; 0 for none.
    """

    image_size: int = 320
    widths: tuple[int, int, int, int] = field(default=(48, 96, 192, 192))
    depths: tuple[int, int, int, int] = field(default=(1, 2, 4, 2))
    embed_dim: int = 128
    decoder_heads: int = 4
    decoder_mlp_dim: int = 512
    iou_hidden_dim: int = 128
    encoder: str = "blocks"
    iou_knots: int = 0

    def __post_init__(self) -> None:
        if self.encoder not in ENCODERS:
            raise ValueError(f"student encoder {self.encoder!r} is unknown: use one of {', '.join(ENCODERS)}")
        if self.iou_knots < 0 or self.iou_knots == 1:
            raise ValueError(f"iou_knots {self.iou_knots}: use 0 for no curve, or at least 2")
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

    # SAM's parts, at the student's widths
    sam = Sam(
        image_encoder=Lite0Encoder(config)
        if config.encoder == "efficientnet_lite0"
        else StudentEncoder(config),
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

    # Predicted IoU through a curve
    if config.iou_knots:
        head = sam.mask_decoder.iou_prediction_head
        sam.mask_decoder.iou_prediction_head = CalibratedHead(
            dim, config.iou_hidden_dim, sam.mask_decoder.num_mask_tokens, head.num_layers, config.iou_knots
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
        half: store float16, at half the size (the calibration curve stays float32, or its order might
            not hold); loading gives float32 again.
    """
    dtype = torch.float16 if half else torch.float32
    curve = {name for name, _ in sam.mask_decoder.iou_prediction_head.named_buffers()}
    tensors = {
        name: value.detach()
        .to("cpu", torch.float32 if name.rpartition(".")[2] in curve else dtype)
        .contiguous()
        for name, value in sam.state_dict().items()
    }
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
    if metadata.get("version") not in READ_VERSIONS:
        raise ValueError(
            f"{path} has student version {metadata.get('version')!r}; this code reads "
            f"{' and '.join(READ_VERSIONS)}"
        )
    stored: dict[str, Any] = json.loads(metadata["config"])
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}
    return StudentConfig(**values)
