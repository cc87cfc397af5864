"""EfficientNet-Lite0 as an encoder: strides, padding, and that pictures of a batch don't see each other."""

from __future__ import annotations

import torch

from maskmill.pipeline.segmenters.efficientnet import WIDTHS, Lite0Encoder, Lite0Trunk, SameConv
from maskmill.pipeline.segmenters.student import StudentConfig

LITE = StudentConfig(image_size=64, embed_dim=32, decoder_heads=2, encoder="efficientnet_lite0")


def test_taps_have_the_strides_that_are_fused() -> None:
    taps = Lite0Trunk()(torch.randn(1, 3, 64, 96))
    assert [tuple(tap.shape[1:]) for tap in taps] == [
        (width, 64 // stride, 96 // stride) for width, stride in zip(WIDTHS, (4, 8, 16, 32), strict=True)
    ]


def test_a_stride_of_two_pads_to_the_right_and_below() -> None:
    layer = SameConv(1, 1, 3, stride=2)
    with torch.no_grad():
        layer.weight.zero_(), layer.bias.zero_()  # type: ignore[union-attr]
        layer.weight[0, 0, 0, 0] = 1.0  # the upper left of each window
    picture = torch.arange(36.0).view(1, 1, 6, 6)
    assert torch.equal(layer(picture)[0, 0], picture[0, 0, ::2, ::2])


def test_nothing_depends_on_the_batch_and_no_statistics_are_kept() -> None:
    torch.manual_seed(0)
    encoder, images = Lite0Encoder(LITE), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together = encoder(images)
        alone = torch.cat([encoder(image[None]) for image in images])
    assert together.shape == (3, 32, 8, 8)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert not list(encoder.named_buffers())
