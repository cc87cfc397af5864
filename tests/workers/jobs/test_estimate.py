"""The dry run: true where it can be checked, honest where it cannot."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from maskmill.workers.jobs.draw_inputs import InputSample
from maskmill.workers.jobs.estimate import Estimate, MeasuredImage, estimate_inputs, predict, total_of
from maskmill.workers.reading.survey import survey_masks
from tests.workers.published import Published, build_stages, make_spec, publish_dataset, write_inputs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def of_all(tmp_path_factory: pytest.TempPathFactory) -> Estimate:
    folder = tmp_path_factory.mktemp("estimate")
    write_inputs(folder / "inputs")
    spec = make_spec(folder / "dataset")
    estimate = estimate_inputs(
        [str(folder / "inputs")], spec, num_workers=1, num_images=50, build=build_stages
    )
    assert not (folder / "dataset").exists(), "a dry run writes nothing into the dataset"
    return estimate


def test_when_all_is_run_masks_and_rejects_are_exact(data: Published, of_all: Estimate) -> None:
    survey = survey_masks(data.store, data.generation)
    assert of_all.num_inputs == of_all.num_sampled == 10
    assert of_all.masks.low == of_all.masks.mean == of_all.masks.high == pytest.approx(survey.num_masks)
    assert of_all.rejected_in_sample == {"not_an_image": 1}
    assert of_all.hours.low == of_all.hours.high > 0


def test_when_all_is_run_bytes_are_those_of_the_dataset(data: Published, of_all: Estimate) -> None:
    for column, predicted in of_all.bytes_by_column.items():
        name, _, index = column.partition(" ")
        rows = [row for row in data.generation.rows() if row.column == name]
        written = [row.index if index else row.data for row in rows]
        size_bytes = sum(found.size_bytes for found in written if found is not None)
        assert predicted.mean < size_bytes, column
        padding = (12_000 if index else 10_240) * len(rows)  # a tar's end, a table's footer
        assert predicted.mean > size_bytes - padding, column
    assert set(of_all.bytes_by_column) == {"images", "images index", "masks", "masks index"}
    assert of_all.total_bytes.mean == pytest.approx(sum(b.mean for b in of_all.bytes_by_column.values()))


def test_a_part_gives_an_interval_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    write_inputs(tmp_path / "inputs")
    seen: list[tuple[int, int]] = []
    estimate = estimate_inputs(
        [str(tmp_path / "inputs")],
        make_spec(tmp_path / "dataset"),
        num_workers=4,
        num_images=4,
        seed=1,
        progress=lambda done, todo: seen.append((done, todo)),
        build=build_stages,
    )
    assert estimate.num_sampled == 4 and seen[-1] == (4, 4)
    for interval in (estimate.total_bytes, estimate.hours):
        assert 0 <= interval.low < interval.mean < interval.high < math.inf
    assert any("4 workers" in sentence for sentence in estimate.unknown)
    assert any("tars" in sentence for sentence in estimate.unknown)


def test_hours_are_shared_by_workers_and_models_loaded_by_each() -> None:
    drawn = InputSample(
        images=(), num_images=3600, size_bytes=1, tars_estimated=0, problems={}, skipped={".pdf": 2}
    )
    image = MeasuredImage(seconds=2.0, masks=5, bytes_by_column={"masks": 10}, seconds_by_step={}, rejects={})
    hours = {
        num_workers: predict(drawn, [image] * 3, {}, num_workers=num_workers, setup_s=36.0).hours.mean
        for num_workers in (1, 4)
    }
    assert hours == {1: pytest.approx(2.01), 4: pytest.approx(0.51)}


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    draw = np.random.default_rng(0)
    everything = draw.normal(100, 20, 400)
    held = 0
    for _ in range(300):
        interval = total_of(draw.choice(everything, 8, replace=False).tolist(), 400)
        held += interval.low <= everything.sum() <= interval.high
    assert 0.91 < held / 300 < 0.99


def test_one_of_many_is_no_interval_and_all_is_no_doubt() -> None:
    assert total_of([5.0], 10).high == math.inf and total_of([5.0], 10).low == 0
    assert total_of([1.0, 3.0], 2).low == total_of([1.0, 3.0], 2).high == 4
    assert total_of([0.0, 0.0, 0.0], 100).high == 0


@pytest.mark.parametrize("wrong", [{"num_images": 0}, {"num_workers": 0}])
def test_counts_below_one_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        estimate_inputs(["x"], make_spec(tmp_path), **{"num_workers": 1, **wrong})
