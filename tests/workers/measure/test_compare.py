"""What changed between generations: by hand-made masks, and over a dataset with two of them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from maskmill.pipeline.rle import Rle, decode
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.diff import changed_rows, changed_settings
from maskmill.storage.dataset.generations import Generation, publish
from maskmill.storage.dataset.join import read_row
from maskmill.storage.shards.index import read_index, write_index
from maskmill.storage.shards.shards import Sample, write_shard
from maskmill.workers.measure.compare import compare, match_masks
from maskmill.workers.measure.difference_sheet import difference_sheet
from tests.workers.published import Published, publish_dataset


def rle(top: int, left: int, height: int, width: int) -> dict[str, Any]:
    mask = np.zeros((40, 40), np.uint8)
    mask[top : top + height, left : left + width] = 1
    found = coco_mask.encode(np.asfortranarray(mask))
    return {"size": found["size"], "counts": found["counts"].decode()}


def test_equal_masks_are_the_same_and_near_ones_are_pairs() -> None:
    before = [rle(0, 0, 10, 10), rle(20, 20, 10, 10), rle(0, 30, 5, 5)]
    after = [rle(20, 20, 10, 9), rle(0, 0, 10, 10), rle(30, 0, 5, 5)]
    same, paired = match_masks(before, after)
    assert same == 1
    assert paired == [pytest.approx(0.9)]


def test_the_best_pair_goes_first_and_a_mask_is_paired_once() -> None:
    before = [rle(0, 0, 10, 10), rle(0, 0, 10, 8)]
    after = [rle(0, 0, 10, 9)]
    assert match_masks(before, after) == (0, [pytest.approx(0.9)])


@pytest.mark.parametrize("sides", [([], []), ([rle(0, 0, 4, 4)], []), ([], [rle(0, 0, 4, 4)])])
def test_nothing_to_pair(sides: tuple[list[Any], list[Any]]) -> None:
    assert match_masks(*sides) == (0, [])


def test_equal_masks_twice_are_counted_twice() -> None:
    one = rle(3, 3, 9, 9)
    assert match_masks([one, one], [one, one, one]) == (2, [])


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Published, Generation]:
    """The published dataset, and a second generation with shard 0's masks changed by hand."""
    data = publish_dataset(tmp_path_factory.mktemp("two"))
    return data, change_masks(data)


def change_masks(data: Published) -> Generation:
    """Image 1 loses a mask, image 2 gets one, image 3 has one cut down; all under another fingerprint."""
    store, old = data.store, {row.shard: row for row in data.generation.rows() if row.column == "masks"}
    version = ColumnVersion(store, "masks", "2" * 16)
    for shard, row in old.items():
        samples = [_changed(sample) if shard == 0 else sample for sample in read_row(store, row)]
        record = ColumnVersion(store, "masks", row.fingerprint).record(shard)
        assert record is not None and row.index is not None
        attempt = f"{shard:016x}"
        written = write_shard(store, version.data_name(shard, attempt), samples)
        rows = read_index(store, row.index).to_pylist()
        version.commit(
            type(record)(
                **{
                    **{name: getattr(record, name) for name in record.__dataclass_fields__},
                    "fingerprint": version.fingerprint,
                    "attempt": attempt,
                    "data": written,
                    "index": write_index(store, version.index_name(shard, attempt), rows),
                }
            )
        )
    return publish(
        store,
        {"images": "0" * 16, "masks": version.fingerprint},
        settings={"masks": {"note": "other", "predicted_iou": 0.9}},
        models={"segmenter": "fake 2"},
        totals={},
        created_utc="2025-01-02T00:00:00+00:00",
    )


def _changed(sample: Sample) -> Sample:
    record = json.loads(sample.files["json"])
    rows = record["annotations"]
    if sample.key == "000000001":
        rows.pop()
    elif sample.key == "000000002":
        height, width = rows[0]["segmentation"]["size"]
        corner = np.zeros((height, width), np.uint8)
        corner[:2, :2] = 1
        found = coco_mask.encode(np.asfortranarray(corner))
        counts = {"size": found["size"], "counts": found["counts"].decode()}
        rows.append({**rows[0], "id": rows[0]["id"] + 50, "segmentation": counts})
    elif sample.key == "000000003":
        mask = decode(Rle.from_coco(rows[0]["segmentation"])).astype(np.uint8)
        y, x = (int(place[0]) for place in np.nonzero(mask))
        mask[y, x] = 0
        found = coco_mask.encode(np.asfortranarray(mask))
        rows[0]["segmentation"]["counts"] = found["counts"].decode()
    return Sample(sample.key, {"json": json.dumps(record).encode()})


def test_a_diff_counts_masks_and_names_the_largest_differences(two: tuple[Published, Generation]) -> None:
    data, second = two
    report = compare(data.store, data.generation, second)
    assert report.shards_changed == {"masks": 1}  # the other shards have equal bytes
    assert report.masks is not None
    assert (report.masks.added, report.masks.removed) == (1, 1)
    assert report.masks.changed == {"0.95 to 1": 1, "0.80 to 0.95": 0, "0.50 to 0.80": 0}
    assert (report.masks.images, report.masks.images_changed) == (4, 3)
    assert {image.key for image in report.largest} == {"000000001", "000000002", "000000003"}
    assert report.largest[-1].key == "000000003"
    names = {change.name: (change.before, change.after) for change in report.settings}
    assert names["masks.predicted_iou"] == (None, 0.9)
    assert [change.after for change in report.models] == ["fake 2"]


def test_a_generation_does_not_differ_from_itself(two: tuple[Published, Generation]) -> None:
    data, second = two
    report = compare(data.store, second, second)
    assert (report.masks, report.columns, report.settings, report.shards_changed) == (None, (), (), {})


def test_one_side_may_lack_a_shard(two: tuple[Published, Generation]) -> None:
    from maskmill.storage.dataset.generations import publish_rows

    data, second = two
    part = tuple(row for row in second.rows() if row.shard != 0)
    facts = {"columns": second.columns, "settings": {}, "models": {}, "totals": {}}
    third = publish_rows(data.store, part, facts, "2025-01-03T00:00:00+00:00")
    report = compare(data.store, second, third)
    assert report.masks is not None
    assert (report.masks.images, report.masks.images_removed, report.masks.images_added) == (0, 4, 0)
    assert {change.column for change in changed_rows(second, third)} == {"images", "masks"}


def test_the_sheet_shows_before_and_after(two: tuple[Published, Generation], tmp_path: Path) -> None:
    data, second = two
    report = compare(data.store, data.generation, second)
    png = difference_sheet(data.store, data.generation, second, report.largest, num_images=2, cell_px=128)
    with Image.open(io.BytesIO(png)) as sheet:
        assert sheet.width > 2 * 128
    same = difference_sheet(data.store, data.generation, data.generation, report.largest[:1], cell_px=128)
    assert same != png


def test_settings_are_compared_field_by_field() -> None:
    changes = changed_settings({"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "z": None}, "b": 3})
    assert [(c.name, c.before, c.after) for c in changes] == [("a.y", 2, None), ("b", None, 3)]
