from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from maskmill.pipeline.settings import FAST, SA1B, MaskSettings, SegmenterSettings, output_settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"points_per_side": 0}, "points_per_side=0 is out of range: use 1 to 256"),
        ({"points_per_side": 8.0}, "must be a whole number"),
        ({"points_per_batch": True}, "must be a whole number"),
        ({"predicted_iou": 1.01}, "predicted_iou=1.01"),
        ({"stability": float("nan")}, "stability=nan"),
        ({"stability_offset": 0.0}, "stability_offset=0.0"),
        ({"box_nms": "0.7"}, "must be a number"),
        ({"crop_layers": 5}, "crop_layers=5"),
        ({"crop_overlap": 1.0}, "crop_overlap=1.0"),
        ({"crop_layers": 3, "points_per_side": 4, "crop_points_downscale": 2}, "leaves no point"),
        ({"max_coverage": 0.0}, "max_coverage=0.0"),
        ({"drop_small": 1, "min_area_px": 5}, "must be a bool"),
        ({"drop_small": True}, "drop_small needs min_area_px"),
    ],
)
def test_mask_settings_name_the_bad_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskSettings(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "vit_x"}, "use one of nano, vit_b"),
        ({"dtype": "int8"}, "use one of float32"),
        ({"device": "gpu"}, "device='gpu' is unknown"),
        ({"weights": ""}, "is no path"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_segmenter_settings_name_the_bad_value(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmenterSettings(**values)


def test_edges_of_the_ranges_are_allowed() -> None:
    MaskSettings(points_per_side=1, predicted_iou=0, stability=1, crop_overlap=0, max_coverage=1)
    MaskSettings(crop_layers=3, points_per_side=8, crop_points_downscale=2)
    SegmenterSettings(model="vit_h", device="cuda:1", dtype="bfloat16", threads=1)


def test_neutral_fields_do_not_reach_the_fingerprint() -> None:
    first = MaskSettings(points_per_batch=64)
    second = MaskSettings(points_per_batch=8)
    assert output_settings(first) == output_settings(second)
    assert output_settings(first) != output_settings(MaskSettings(stability=0.9))
    named = output_settings(SegmenterSettings(device="cpu", threads=2, weights="a.safetensors"))
    assert named == {"model": "nano", "dtype": "float32"}


def test_output_settings_refuses_what_is_no_settings_object() -> None:
    with pytest.raises(ValueError, match="got dict"):
        output_settings({"points_per_side": 3})
    with pytest.raises(ValueError, match="got type"):
        output_settings(MaskSettings)


def test_presets_are_the_papers() -> None:
    assert (FAST.points_per_side, FAST.crop_layers, FAST.min_area_px, FAST.max_coverage) == (32, 0, 0, None)
    assert (SA1B.crop_layers, SA1B.crop_points_downscale, SA1B.min_area_px) == (2, 2, 100)
    assert (SA1B.max_coverage, SA1B.drop_small) == (0.95, True)


def test_settings_and_annotations_load_without_torch() -> None:
    code = (
        "import sys\nfrom maskmill.pipeline import annotation, segmenters, settings\n"
        "from maskmill.pipeline.weights import weights\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
