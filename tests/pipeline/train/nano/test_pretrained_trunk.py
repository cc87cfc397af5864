"""The pretrained trunk: folded exactly, told SAM's pixels, and a student on it goes on from an older one."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor

from maskmill.pipeline.segmenters.efficientnet import TAPS, Lite0Trunk
from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.train.nano.pretrained_trunk import (
    TRUNK_MEAN,
    TRUNK_STD,
    fold_into,
    pretrained_student,
    stored_tensors,
    take_sam_pixels,
)
from maskmill.pipeline.train.pictures import PIXEL_MEAN, PIXEL_STD

SMALL = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(0, 1, 0, 1), embed_dim=32, decoder_heads=2)
LITE = StudentConfig(image_size=64, embed_dim=32, decoder_heads=2, encoder="efficientnet_lite0", iou_knots=9)


def _pretrained_trunk() -> Lite0Trunk:
    trunk = Lite0Trunk().eval()
    fold_into(trunk, stored_tensors())
    return trunk


def _oracle_taps(image: Tensor) -> list[Tensor]:
    """timm's own features with its batch norms in force."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    model.load_state_dict(dict(zip(names, stored_tensors(), strict=True)), strict=False)
    x = model.bn1(model.conv_stem(image))
    taps = []
    for number, stage in enumerate(model.blocks):
        x = stage(x)
        if number in TAPS:
            taps.append(x)
    return taps


@torch.no_grad()
def test_the_folded_trunk_equals_timms_network() -> None:
    image = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for got, wanted in zip(_pretrained_trunk()(image), _oracle_taps(image), strict=True):
        torch.testing.assert_close(got, wanted, atol=2e-4, rtol=1e-4)


@torch.no_grad()
def test_a_trunk_takes_pictures_as_sam_normalises_them() -> None:
    pixels = torch.randint(0, 256, (1, 3, 64, 64), generator=torch.Generator().manual_seed(1)).float()
    own, sams = _pretrained_trunk(), _pretrained_trunk()
    take_sam_pixels(sams)
    mean, std = (torch.from_numpy(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    wanted = own.stem((pixels - TRUNK_MEAN) / TRUNK_STD)
    got = sams.stem((pixels - mean) / std)
    torch.testing.assert_close(got[..., :-1, :-1], wanted[..., :-1, :-1], atol=1e-4, rtol=1e-4)


def test_a_student_begins_from_the_trunk_and_an_older_student() -> None:
    torch.manual_seed(0)
    older = build_student(SMALL)
    pictures = [torch.randn(4, 3, 64, 64) for _ in range(3)]
    sam, explained = pretrained_student(LITE, older, pictures)
    assert 0.3 < explained <= 1
    with torch.no_grad():
        got, wanted = sam.image_encoder(pictures[0]), older.image_encoder(pictures[0])
    assert (got - wanted).square().mean() < 0.8 * (
        wanted - wanted.mean((0, 2, 3), keepdim=True)
    ).square().mean()
    for name, value in older.mask_decoder.state_dict().items():
        assert torch.equal(sam.mask_decoder.state_dict()[name], value)


def test_weights_of_another_network_are_named() -> None:
    tensors = stored_tensors()
    with pytest.raises(ValueError, match="too few"):
        fold_into(Lite0Trunk(), tensors[:20])
    with pytest.raises(ValueError, match="convolution 0 has"):
        fold_into(Lite0Trunk(), [tensors[5], *tensors[1:]])
    with pytest.raises(ValueError, match="another shape"):
        pretrained_student(
            StudentConfig(image_size=64, encoder="efficientnet_lite0"), build_student(SMALL), []
        )
