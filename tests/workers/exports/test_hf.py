"""The Parquet export as Hugging Face's `datasets` loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from maskmill.workers.exports import hf as hf_module
from maskmill.workers.exports.export import export
from maskmill.workers.exports.report import ExportReport
from maskmill.workers.reading.samples import read_annotated
from tests.workers.published import CAPTION, NUM_ANNOTATED, Published, publish_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def exported(data: Published, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportReport]:
    folder = tmp_path_factory.mktemp("hf") / "out"
    return folder, export(data.store, data.generation, str(folder), format="hf", max_images=4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")
def test_datasets_loads_every_image_and_mask(
    data: Published,
    exported: tuple[Path, ExportReport],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    folder, report = exported
    loaded = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == report.num_images == NUM_ANNOTATED
    assert isinstance(loaded.features["image"], datasets.Image)
    rows = {row["key"]: row for row in loaded}
    assert sum(len(row["masks"]) for row in rows.values()) == report.num_masks
    for sample in read_annotated(data.store, data.generation):
        row = rows[sample.key]
        assert row["image"].size == (row["width"], row["height"])
        assert row["image"].size == (sample.record["image"]["width"], sample.record["image"]["height"])
        for theirs, ours in zip(row["masks"], sample.record["annotations"], strict=True):
            assert theirs["counts"] == ours["segmentation"]["counts"]
            names = ("id", "bbox", "area", "predicted_iou", "stability_score", "crop_box", "point_coords")
            assert {name: theirs[name] for name in names} == {name: ours[name] for name in names}
            assert (theirs["parent"], theirs["output_token"]) == (ours["parent"], ours["output_token"])
    assert [row["caption"] for row in rows.values() if row["caption"]] == [CAPTION]
    assert np.asarray(next(iter(rows.values()))["image"]).ndim == 3


def test_files_are_cut_at_their_limits(exported: tuple[Path, ExportReport]) -> None:
    folder, report = exported
    assert [file.num_images for file in report.files] == [4, 4, 1]
    for file in report.files:
        assert pq.read_metadata(folder / file.name).num_rows == file.num_images
        assert (folder / file.name).stat().st_size == file.size_bytes
    assert not (folder / "parts").exists() or not list((folder / "parts").iterdir())


def test_a_killed_export_goes_on(data: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = export(data.store, data.generation, str(tmp_path / "whole"), format="hf", max_images=4)
    write, done = hf_module._write_file, []

    def dies_at_the_second(*args: Any, **options: Any) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(args)
        return write(*args, **options)

    monkeypatch.setattr(hf_module, "_write_file", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        export(data.store, data.generation, str(tmp_path / "out"), format="hf", max_images=4)
    monkeypatch.setattr(hf_module, "_write_file", write)
    stamp = (tmp_path / "out" / "data" / "train-00000.parquet").stat().st_mtime_ns
    again = export(data.store, data.generation, str(tmp_path / "out"), format="hf", max_images=4)
    assert again.files == whole.files
    assert (tmp_path / "out" / "data" / "train-00000.parquet").stat().st_mtime_ns == stamp


def test_photographs_are_always_in_it(data: Published, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hf always holds its images"):
        export(data.store, data.generation, str(tmp_path / "out"), format="hf", images=False)
