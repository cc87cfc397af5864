"""What all model roles share, and the room of settings that every layer reads."""

from __future__ import annotations

import subprocess
import sys

import pytest

import maskmill.pipeline.settings as room
from maskmill.pipeline.settings import (
    CaptionSettings,
    DistillSettings,
    EvaluateSettings,
    GateSettings,
    MaskSettings,
    TrainSettings,
    output_settings,
)
from maskmill.pipeline.settings.families import families_of, model_types_of
from maskmill.pipeline.settings.roles import check_device, check_model, check_role


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:12"])
def test_devices_are_words_of_torch_and_auto(device: str) -> None:
    check_device(device)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "", None, 0])
def test_other_devices_are_refused(device: object) -> None:
    with pytest.raises(ValueError, match="is unknown: use auto, cpu, cuda, cuda:<number> or mps"):
        check_device(device)


def test_a_model_is_named_or_none_and_a_role_checks_all_three() -> None:
    check_model("model", None)
    with pytest.raises(ValueError, match="filter='  ' is no model"):
        check_model("filter", "  ")
    with pytest.raises(ValueError, match="batch_size=0"):
        check_role(0, "cpu", "float32")
    with pytest.raises(ValueError, match="dtype='int8' is unknown"):
        check_role(1, "cpu", "int8")


def test_neutral_fields_are_left_out_in_order() -> None:
    names = list(output_settings(MaskSettings()))
    assert names[:3] == ["points_per_side", "predicted_iou", "stability"]
    assert not {"points_per_batch", "keep_candidates", "candidate_iou"} & set(names)
    assert "batch_size" not in output_settings(CaptionSettings())


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (TrainSettings, {"steps": -1}, "steps=-1 is out of range: use 0 to 10000000"),
        (TrainSettings, {"drop_path": 0.95}, "drop_path=0.95 is out of range: use 0 to 0.9"),
        (TrainSettings, {"focal_alpha": 1.0}, "focal_alpha=1.0"),
        (TrainSettings, {"clip": 0.0}, "clip=0.0 is out of range: use a number above 0"),
        (TrainSettings, {"encoder": "half"}, "use one of frozen, lora, all"),
        (TrainSettings, {"lr_drops": "0.5,1.5"}, "write shares of the steps"),
        (DistillSettings, {"rounds": 17}, "rounds=17 is out of range: use 1 to 16"),
        (DistillSettings, {"encoder_steps": 0, "prompt_steps": 0}, "there is nothing to train"),
        (EvaluateSettings, {"edge_grid": 257}, "edge_grid=257 is out of range: use 1 to 256"),
        (EvaluateSettings, {"clicks": "2,3"}, "must rise from 1"),
        (GateSettings, {"confidence": 1.0}, "confidence=1.0"),
        (GateSettings, {"bootstrap": 99}, "bootstrap=99 is out of range: use 100 to 100000"),
    ],
)
def test_training_and_measuring_name_the_bad_value(kind: type, values: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        kind(**values)


def test_model_types_are_those_of_the_table() -> None:
    dino = ("grounding-dino", "mm-grounding-dino")
    assert model_types_of("detector") == (*dino, "owlv2", "owlvit", "omdet-turbo")
    assert model_types_of("captioner") == ("blip", "blip-2", "florence2")
    assert set(model_types_of("namer")) == {t for family in families_of("namer") for t in family.model_types}


def test_the_room_gives_what_it_lists_and_loads_nothing_heavy() -> None:
    assert all(hasattr(room, name) for name in room.__all__)
    code = (
        "import sys\nfrom maskmill.pipeline.settings import memory\nimport maskmill.pipeline.settings\n"
        "heavy = {'torch', 'numpy', 'transformers', 'numba'} & set(sys.modules)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
