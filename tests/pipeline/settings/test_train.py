"""Settings of a training."""

from __future__ import annotations

import pytest

from maskmill.pipeline.settings import output_settings
from maskmill.pipeline.settings.train import TrainSettings

LATER = {
    "automatic_quality",
    "iou_target",
    "ambiguous",
    "looks",
    "crops",
    "average",
    "calibrate",
    "score_steps",
}


def test_trainings_of_before_keep_their_names() -> None:
    """Settings that came later name a training only where they are set."""
    assert not LATER & set(output_settings(TrainSettings()))
    assert "average" in output_settings(TrainSettings(average=0.9))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("automatic_quality", "predicted_iou"),
        ("iou_target", "verdict"),
        ("ambiguous", 1),
        ("calibrate", "yes"),
        ("looks", 1.5),
        ("crops", -0.1),
        ("average", 1.0),
        ("score_steps", -1),
        ("steps", 0),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        TrainSettings(**{name: value})  # type: ignore[arg-type]


def test_verdicts_are_asked_for_where_a_setting_reads_them() -> None:
    assert not TrainSettings().asks_verdicts
    assert TrainSettings(automatic_quality="p_right").asks_verdicts
    assert TrainSettings(iou_target="expected").asks_verdicts
