"""One mask edited in another tool's own file comes back as a review; all else is byte for byte as before."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from maskmill.pipeline.rle import Rle, decode, encode_mask
from maskmill.storage.dataset.saves import saved_numbers, standing_of
from maskmill.storage.errors import InputError
from maskmill.workers.exports.export import export
from maskmill.workers.reading.samples import read_annotated
from maskmill.workers.reviews.column import publish_saves
from maskmill.workers.reviews.keep import Work, begin, keep
from maskmill.workers.reviews.rows import ADDED, MaskWork
from maskmill.workers.tools import fiftyone
from maskmill.workers.tools.take_back import BESIDE, SAME, SAVED, THERE, take_back
from tests.workers.published import NUM_ANNOTATED, Published
from tests.workers.tools.editors import (
    FILES,
    KEY,
    NOW,
    back,
    cvat_file,
    erase_cvat,
    fiftyone_folder,
    files_of,
    halved,
    label_studio_file,
    masks_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("format", FILES)
def test_one_edited_mask_comes_back_and_nothing_else_changes(
    format: str, data: Published, tmp_path: Path
) -> None:
    report = export(data.store, data.generation, str(tmp_path / "out"), format=format)
    assert (report.num_images, len(list((tmp_path / "out/images").iterdir()))) == (NUM_ANNOTATED,) * 2
    write, erase = FILES[format]
    before = files_of(data)
    path = write(tmp_path / "out", erase)  # type: ignore[operator]
    taken = back(data, path, format)

    assert taken.pictures == {SAVED: 1, SAME: NUM_ANNOTATED - 1}
    after = files_of(data)
    assert {name: after[name] for name in before} == before
    assert [name for name in after if name not in before] == [f"review/saves/{KEY}/000001.json"]
    save = standing_of(data.store, KEY).in_force
    assert save is not None
    assert save.who == ("ana@example.org" if format == "label_studio" else "Ana")
    assert (save.tool, save.made_by) == (format, "person")
    ours = masks_of(data)
    first = min(ours)
    for row in save.annotations:
        (source,) = row["from"]
        found = decode(Rle.from_coco(row["segmentation"]))
        assert row["how"] == ("changed" if source == first else "kept")
        assert (found == (halved(ours[source]) if source == first else ours[source])).all()

    again = back(data, path, format)
    assert again.pictures == {THERE: 1, SAME: NUM_ANNOTATED - 1}
    assert files_of(data) == after


@pytest.mark.parametrize("format", FILES)
def test_an_export_that_nobody_edited_changes_nothing(format: str, data: Published, tmp_path: Path) -> None:
    export(data.store, data.generation, str(tmp_path / "out"), format=format)
    before = files_of(data)
    path = FILES[format][0](tmp_path / "out", None)
    assert back(data, path, format).pictures == {SAME: NUM_ANNOTATED}
    assert files_of(data) == before


def test_fiftyones_masks_may_be_pictures_and_boxes_drawn_anew(data: Published, tmp_path: Path) -> None:
    """A PNG in place of the packed mask; a box of another size scales its mask; a box alone is refused."""
    export(data.store, data.generation, str(tmp_path / "out"), format="fiftyone")
    back_folder = fiftyone_folder(tmp_path / "out")
    found = json.loads((back_folder / fiftyone.SAMPLES).read_text())
    sample = next(one for one in found["samples"] if one[fiftyone.KEY] == KEY)
    first = sample[fiftyone.FIELD]["detections"][0]
    crop = np.load(io.BytesIO(zlib.decompress(base64.b64decode(first.pop("mask")["$binary"]["base64"]))))
    Image.fromarray(crop.astype(np.uint8) * 255).save(back_folder / "m.png")
    first["mask_path"] = "m.png"
    (back_folder / fiftyone.SAMPLES).write_text(json.dumps(found))
    assert back(data, back_folder, "fiftyone").pictures == {SAME: NUM_ANNOTATED}

    size = sample["metadata"]
    first["bounding_box"] = [0.0, 0.0, 2 / size["width"], 2 / size["height"]]
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(back_folder / "m.png")
    (back_folder / fiftyone.SAMPLES).write_text(json.dumps(found))
    assert back(data, back_folder, "fiftyone").masks["changed"] == 1
    save = standing_of(data.store, KEY).in_force
    assert save is not None
    assert [row["area"] for row in save.annotations if row["how"] == "changed"] == [4]

    del first["mask_path"]
    (back_folder / fiftyone.SAMPLES).write_text(json.dumps(found))
    with pytest.raises(InputError, match="has no mask: draw one"):
        back(data, back_folder, "fiftyone")


def test_masks_are_added_rejected_and_relabelled(data: Published, tmp_path: Path) -> None:
    export(data.store, data.generation, str(tmp_path / "out"), format="label_studio")

    def edit(result: list[dict[str, Any]]) -> None:
        size = (result[0]["original_height"], result[0]["original_width"])
        new = np.zeros(size, np.bool_)
        new[3:9, 4:20] = True
        del result[0]
        result[0]["value"]["brushlabels"] = ["tree"]
        polygon = {
            "type": "polygonlabels",
            "original_height": size[0],
            "original_width": size[1],
            "value": {
                "points": [
                    [100 * x / size[1], 100 * y / size[0]] for x, y in ((4, 3), (20, 3), (20, 9), (4, 9))
                ],
                "polygonlabels": ["roof"],
            },
            "id": "x",
        }
        result.append(polygon)

    taken = back(data, label_studio_file(tmp_path / "out", edit), "label_studio")
    ours = masks_of(data)
    assert taken.masks == {"added": 1, "confirmed": 1, "rejected": 1, "kept": len(ours) - 2}
    assert taken.people == {"ana@example.org": 1}
    save = standing_of(data.store, KEY).in_force
    assert save is not None and save.rejected == (min(ours),)
    rows = {row["how"]: row for row in save.annotations}
    assert rows["confirmed"]["label"] == "tree" and rows["confirmed"]["made_by"] == "person"
    assert rows["added"]["label"] == "roof" and rows["added"]["area"] == 6 * 16


def test_an_edit_never_takes_the_place_of_later_work(data: Published, tmp_path: Path) -> None:
    export(data.store, data.generation, str(tmp_path / "out"), format="cvat")
    record = next(s.record for s in read_annotated(data.store, data.generation) if s.key == KEY)
    start = begin(data.store, KEY, record=record, generation=1)
    whole = encode_mask(np.ones((record["image"]["height"], record["image"]["width"]), np.bool_)).to_coco()
    masks = [MaskWork(how=ADDED, segmentation=whole)]
    rejected = [row["id"] for row in record["annotations"]]
    keep(data.store, start, Work(who="Ben", tool="page", masks=masks, rejected=rejected), created_utc=NOW)

    taken = back(data, cvat_file(tmp_path / "out", erase_cvat), "cvat")
    assert taken.pictures[BESIDE] == 1
    standing = standing_of(data.store, KEY)
    assert standing.in_force is not None and standing.in_force.who == "Ben"
    assert [one.who for one in standing.beside] == ["Ana"]


def test_edits_of_edits_go_on_from_them(data: Published, tmp_path: Path) -> None:
    export(data.store, data.generation, str(tmp_path / "one"), format="cvat")
    back(data, cvat_file(tmp_path / "one", erase_cvat), "cvat")
    second = publish_saves(data.store, created_utc=NOW)
    assert second is not None and second.number == 2
    export(data.store, second, str(tmp_path / "two"), format="cvat")

    def remove(image: ElementTree.Element) -> None:
        image.remove(next(image.iter("mask")))

    path = cvat_file(tmp_path / "two", remove)
    taken = take_back(data.store, [path], format="cvat", generation=second, who="Cem", created_utc=NOW)
    assert taken.pictures == {SAVED: 1, SAME: NUM_ANNOTATED - 1}
    standing = standing_of(data.store, KEY)
    assert standing.in_force is not None and standing.in_force.who == "Cem" and not standing.beside


def test_what_is_no_edit_of_ours_is_refused_before_anything_is_saved(data: Published, tmp_path: Path) -> None:
    export(data.store, data.generation, str(tmp_path / "out"), format="cvat")
    good = cvat_file(tmp_path / "out", erase_cvat).read_text()
    wrong = {
        "name.xml": (good.replace("sa_2.jpg", "holiday.jpg"), "holiday.jpg: is no picture"),
        "gone.xml": (good.replace("sa_2.jpg", "sa_4711.jpg"), "no picture 4711"),
        "box.xml": (good.replace("</image>", '<box label="a"/></image>', 1), "a box is no mask"),
        "entity.xml": (good.replace("<annotations>", "<!DOCTYPE a><annotations>"), "entities"),
        "none.xml": ("<annotations/>", "CVAT for images 1.1"),
        "text.xml": ("no xml", "cannot be read"),
    }
    for name, (text, message) in wrong.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=message):
            back(data, tmp_path / name, "cvat")
    (tmp_path / "min.json").write_text('[{"image": "sa_1.jpg"}]')
    with pytest.raises(InputError, match="not JSON-MIN"):
        back(data, tmp_path / "min.json", "label_studio")
    assert not saved_numbers(data.store)


def test_a_share_of_a_side_is_its_pixel_again() -> None:
    """29 / 100 * 100 is a little less than 29."""
    for place in range(100):
        found = fiftyone._placed(np.ones((1, 1), np.bool_), [place / 100, 0.0, 1 / 100, 1.0], 1, 100)
        assert np.flatnonzero(found).tolist() == [place]
