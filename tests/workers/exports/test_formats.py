"""The list of export formats: one file each, told in one place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from maskmill.flows.cli import app
from maskmill.flows.config import ConfigError, load_config
from maskmill.workers.exports import formats
from maskmill.workers.exports.formats import FORMATS, ExportChoices, format_named, format_names


def test_each_format_is_a_file_with_a_writer() -> None:
    for one in FORMATS:
        module = one.writer().__module__  # type: ignore[attr-defined]
        assert module.rpartition(".")[2] == one.name
        assert (
            Path(formats.__file__).parents[2] / f"{module.removeprefix('maskmill.').replace('.', '/')}.py"
        ).exists()


def test_the_command_tells_of_every_format() -> None:
    told = re.sub(
        r"[│\s]+", " ", CliRunner().invoke(app, ["export", "--help"], env={"COLUMNS": "300"}).output
    )
    for one in FORMATS:
        assert f"{one.name} ({one.holds})" in told
    assert "only coco, lvis, panoptic, semantic, label_studio or cvat can do without" in told


@pytest.mark.parametrize("name", format_names())
def test_every_format_can_be_set_and_asked_for(name: str) -> None:
    assert load_config(sets=[f"export.format={name}"]).export.format == name


def test_what_cannot_be_exported_is_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match="format='voc' is unknown: use one of sa1b, coco, lvis, yolo, hf"):
        format_named("voc")
    with pytest.raises(ValueError, match=r"yolo always holds its images; .*use one of coco, lvis"):
        ExportChoices(format="yolo", images=False)
    assert not ExportChoices(format="lvis", images=False).images
    with pytest.raises(ValueError, match="max_images=0 and max_bytes=1073741824 must be at least 1"):
        ExportChoices(max_images=0)
    with pytest.raises(ConfigError, match="max_bytes=5000 is out of range"):
        load_config(sets=["export.max_bytes=5000"])
