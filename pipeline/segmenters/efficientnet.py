"""EfficientNet-Lite0 as a student's encoder: pretrained convolutions without batch norm, fused at stride 8.

The trunk is EfficientNet-Lite0's (Liu, 2020; after Tan and Le, EfficientNet, 2019) with each batch norm
folded into the convolution before it, so nothing depends on a batch and no statistics are kept: inverted
residuals of plain convolutions and ReLU6. Strides 4, 8, 16 and 32 are fused top-down into one embedding at
stride 8, as in `student.py`'s own encoder, whose neck it shares.

TensorFlow's "same" padding puts the odd row and column of a stride-2 convolution to the right and below;
symmetric padding would shift the features against the pretrained weights.

It doesn't know where weights come from: `train/nano/pretrained_trunk.py` folds them, training only.

Shapes: B images, C channels, H x W positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from maskmill.pipeline.segmenters.student_encoder import neck

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.student import StudentConfig

STEM_WIDTH = 32
STAGES = (
    # blocks, kernel, stride of the first, expansion, width
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
TAPS = (1, 2, 4, 6)
"""The stages whose outputs are fused: the last of strides 4, 8, 16 and 32."""

WIDTHS = tuple(STAGES[stage][4] for stage in TAPS)


class SameConv(nn.Conv2d):
    """A convolution of an odd kernel, padded as TensorFlow's "same" pads even sides."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        padding = 0 if stride == 2 else kernel // 2
        super().__init__(width_in, width_out, kernel, stride=stride, padding=padding, groups=groups)

    def forward(self, input: Tensor) -> Tensor:
        """The convolution, padded as TensorFlow pads: an odd rest goes to the end."""
        if self.stride[0] == 2:
            less = (self.kernel_size[0] - 2) // 2
            more = self.kernel_size[0] - 2 - less
            input = F.pad(input, (less, more, less, more))
        return super().forward(input)


class InvertedResidual(nn.Module):
    """Widen by 1x1, mix by a depthwise convolution, narrow by 1x1; residual where the shape stays."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = width_in * expansion
        widen = [SameConv(width_in, middle, 1), nn.ReLU6()] if expansion > 1 else []
        mix = [SameConv(middle, middle, kernel, stride, groups=middle), nn.ReLU6()]
        self.layers = nn.Sequential(*widen, *mix, SameConv(middle, width_out, 1))
        self.is_residual = stride == 1 and width_in == width_out

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """B x C x H x W through the block; the input is added where the shape stays."""
        y_BCHW: Tensor = self.layers(x_BCHW)
        return x_BCHW + y_BCHW if self.is_residual else y_BCHW


class Lite0Trunk(nn.Module):
    """B x 3 x S x S to the outputs at strides 4, 8, 16 and 32, of `WIDTHS` channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv(3, STEM_WIDTH, 3, stride=2), nn.ReLU6())
        self.stages = nn.ModuleList()
        width = STEM_WIDTH
        for blocks, kernel, stride, expansion, width_out in STAGES:
            stage = []
            for block in range(blocks):
                stage.append(
                    InvertedResidual(width, width_out, kernel, stride if block == 0 else 1, expansion)
                )
                width = width_out
            self.stages.append(nn.Sequential(*stage))

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """The image of B x 3 x S x S at the four strides, finest first."""
        x = self.stem(image_B3HW.contiguous(memory_format=torch.channels_last))
        taps = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in TAPS:
                taps.append(x)
        return taps

    def convolutions(self) -> list[SameConv]:
        """All convolutions in the order of the computation."""
        return [module for module in self.modules() if isinstance(module, SameConv)]


class Lite0Encoder(nn.Module):
    """Image to embedding: B x 3 x S x S, normalised, to B x embed_dim x S/8 x S/8."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.img_size = config.image_size
        self.trunk = Lite0Trunk()
        w4, w8, w16, w32 = WIDTHS
        dim = config.embed_dim
        self.from4 = nn.Conv2d(w4, dim, 2, stride=2)
        self.from8, self.from16, self.from32 = (nn.Conv2d(width, dim, 1) for width in (w8, w16, w32))
        self.neck = neck(dim)

    def forward(self, image_B3HW: Tensor) -> Tensor:
        """The embedding of a batch of images, at stride 8."""
        return self.refined(self.trunk(image_B3HW))

    def refined(self, taps: list[Tensor]) -> Tensor:
        """The trunk's outputs fused at stride 8 and refined."""
        x4, x8, x16, x32 = taps
        top = self.from16(x16) + F.interpolate(self.from32(x32), scale_factor=2.0, mode="nearest")
        fused = self.from4(x4) + self.from8(x8) + F.interpolate(top, scale_factor=2.0, mode="bilinear")
        embedding_BCHW: Tensor = self.neck(fused)
        return embedding_BCHW
