"""Editors' files as strangers leave them: each comes back right, or is refused by file, item and cure."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from maskmill.storage.dataset.saves import saved_numbers, standing_of
from maskmill.storage.errors import InputError
from maskmill.workers.exports.export import export
from maskmill.workers.tools import cvat, fiftyone
from maskmill.workers.tools.edited import DRAFT, SKIPPED, UNTOUCHED, image_id_of
from maskmill.workers.tools.take_back import BESIDE, SAME, SAVED
from tests.workers.published import NUM_ANNOTATED, Published, publish_dataset
from tests.workers.tools.editors import (
    FILES,
    KEY,
    back,
    cvat_file,
    erase_label_studio,
    fiftyone_folder,
    label_studio_file,
    masks_of,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Region = dict[str, Any]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """For tests that save nothing."""
    return publish_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def data(tmp_path: Path) -> Published:
    return publish_dataset(tmp_path)


def exported(data: Published, folder: Path, format: str, **choices: Any) -> Path:
    export(data.store, data.generation, str(folder), format=format, **choices)
    return folder


@pytest.fixture(scope="module")
def exports(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every editor's export of it, by format."""
    folder = tmp_path_factory.mktemp("exports")
    for format in FILES:
        exported(published, folder / format, format)
    return folder


def annotations(exports: Path, format: str, folder: Path) -> Path:
    """An export without its pictures, to edit."""
    folder.mkdir()
    for path in (exports / format).iterdir():
        if path.is_file():
            shutil.copy(path, folder)
    return folder


def tasks_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())
    return found


def ours(tasks: list[dict[str, Any]]) -> dict[str, Any]:
    return next(task for task in tasks if task["data"]["maskmill"]["key"] == KEY)


# What the export left out, nobody took out


NARROW = {
    "masks_where": {"masks_where": "area_px > 100"},
    "classes": {"classes": ("thing",), "class_map": {"*": "thing"}},
}


@pytest.mark.parametrize("choices", NARROW.values(), ids=list(NARROW))
@pytest.mark.parametrize("format", FILES)
def test_masks_that_an_export_left_out_stay(
    format: str, choices: dict[str, Any], published: Published, tmp_path: Path
) -> None:
    """An export of some masks, or under other names, and nobody's edit of it: nothing changes."""
    path = FILES[format][0](exported(published, tmp_path / "out", format, **choices), None)
    if format == "cvat":
        as_cvat_exports(path)
    assert back(published, path, format).pictures == {SAME: NUM_ANNOTATED}
    assert not saved_numbers(published.store)


def as_cvat_exports(path: Path) -> None:
    """The account of the task that CVAT writes before the images: its labels and their attributes."""
    tree, labels = ElementTree.parse(path), json.loads(path.with_name(cvat.LABELS).read_text())
    told = ElementTree.SubElement(ElementTree.SubElement(tree.getroot(), "meta"), "task")
    for label in labels:
        one = ElementTree.SubElement(told, "label")
        ElementTree.SubElement(one, "name").text = label["name"]
        for attribute in label["attributes"]:
            element = ElementTree.SubElement(one, "attribute")
            ElementTree.SubElement(element, "name").text = attribute["name"]
            ElementTree.SubElement(element, "default_value").text = attribute["default_value"]
    tree.write(path)


def test_a_mask_that_was_given_and_is_gone_is_rejected_and_no_other(data: Published, tmp_path: Path) -> None:
    areas = {mask_id: int(mask.sum()) for mask_id, mask in masks_of(data).items()}
    largest = max(areas.values())
    out = exported(data, tmp_path / "out", "label_studio", masks_where=f"area_px >= {largest}")
    taken = back(data, label_studio_file(out, list.clear), "label_studio")
    assert taken.masks["rejected"] == sum(area == largest for area in areas.values())
    assert taken.masks["kept"] == sum(area < largest for area in areas.values()) > 0


def test_a_label_renamed_by_class_map_is_no_new_label_and_a_changed_one_is(
    data: Published, tmp_path: Path
) -> None:
    out = exported(data, tmp_path / "out", "label_studio", classes=("thing",), class_map={"*": "thing"})

    def edit(result: list[Region]) -> None:
        for region in result[:1]:
            region["value"]["brushlabels"] = ["tree"]

    # Masks without any word are of no class: this dataset's are all such, and "*" is for words
    assert not ours(tasks_of(label_studio_file(out, edit)))["predictions"][0]["result"]

    plain = exported(data, tmp_path / "plain", "label_studio")
    path = label_studio_file(plain)
    tasks = tasks_of(path)
    task = ours(tasks)
    given = task["data"]["maskmill"]["given"]
    task["data"]["maskmill"]["given"] = dict.fromkeys(given, "thing")
    for place, region in enumerate(task["annotations"][1]["result"]):
        region["value"]["brushlabels"] = ["thing" if place else "tree"]
    path.write_text(json.dumps(tasks))
    taken = back(data, path, "label_studio")
    assert taken.masks == {"confirmed": 1, "kept": len(given) - 1, "rejected": 0}


def test_edits_of_an_older_generation_know_it(published: Published, exports: Path, tmp_path: Path) -> None:
    """CVAT's file tells the generation by its labels' attributes."""
    path = cvat_file(annotations(exports, "cvat", tmp_path / "out"))
    as_cvat_exports(path)
    assert {image.generation for image in cvat.read(path)} == {1}
    path.write_text(path.read_text().replace("generation 1", "generation 7"))
    with pytest.raises(ValueError, match="no generation 7"):
        back(published, path, "cvat")


@pytest.mark.parametrize("format", FILES)
@pytest.mark.parametrize("choices", [{"column": "given"}, {"prefer": "automatic"}], ids=str)
def test_masks_that_edits_cannot_come_back_to_are_not_given(
    format: str, choices: dict[str, Any], published: Published, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="come back to the masks in force"):
        exported(published, tmp_path / "out", format, **choices)


# Label Studio


def test_tasks_that_nobody_finished_are_told_of(published: Published, exports: Path, tmp_path: Path) -> None:
    """Deleted, skipped, not opened, left as a draft: such pictures stay as they were, and are counted."""
    path = label_studio_file(annotations(exports, "label_studio", tmp_path / "out"))
    tasks = tasks_of(path)
    del tasks[0]
    tasks[0]["annotations"] = tasks[0]["annotations"][:1]
    tasks[1]["annotations"] = []
    tasks[2] |= {"annotations": [], "drafts": [{"id": 1, "result": []}]}
    path.write_text(json.dumps(tasks))
    taken = back(published, path, "label_studio")
    assert taken.pictures == {SKIPPED: 1, UNTOUCHED: 1, DRAFT: 1, SAME: NUM_ANNOTATED - 4}
    assert taken.absent == 1


def test_each_annotators_last_annotation_is_kept(data: Published, tmp_path: Path) -> None:
    """The newest is in force, the other person's stands beside it."""
    path = label_studio_file(exported(data, tmp_path / "out", "label_studio"), erase_label_studio)
    tasks = tasks_of(path)
    task = ours(tasks)
    (_, newest) = task["annotations"]
    newest["completed_by"] = 7
    earlier = {**newest, "id": 3, "completed_by": 8, "updated_at": "2025-01-15"}
    earlier["result"] = newest["result"][1:]
    first = {**earlier, "id": 4, "updated_at": "2025-01-14", "result": []}
    task["annotations"] = [earlier, newest, first]
    path.write_text(json.dumps(tasks))

    taken = back(data, path, "label_studio")
    assert (taken.pictures[SAVED], taken.pictures[BESIDE]) == (1, 1)
    standing = standing_of(data.store, KEY)
    assert standing.in_force is not None and standing.in_force.who == "user 7"
    assert [one.who for one in standing.beside] == ["user 8"]
    assert len(standing.beside[0].rejected) == 1


def a_shape(region: Region, kind: str, **value: Any) -> Region:
    kept = {name: region[name] for name in ("original_height", "original_width", "to_name")}
    return {**kept, "id": "Ab1", "type": f"{kind}labels", "value": {f"{kind}labels": ["roof"], **value}}


def rectangle(result: list[Region]) -> None:
    result.append(a_shape(result[0], "rectangle", x=10, y=10, width=20, height=20, rotation=0))


def open_polygon(result: list[Region]) -> None:
    result.append(a_shape(result[0], "polygon", points=[[1, 1], [50, 1], [50, 50]], closed=False))


def two_points(result: list[Region]) -> None:
    result.append(a_shape(result[0], "polygon", points=[[1, 1], [50, 1]]))


def two_labels(result: list[Region]) -> None:
    result[0]["value"]["brushlabels"] = ["cat", "dog"]


def a_choice(result: list[Region]) -> None:
    result.append({"id": "Ab1", "type": "choices", "value": {"choices": ["blurred"]}})


def a_relation(result: list[Region]) -> None:
    result.append({"from_id": "a", "to_id": "b", "type": "relation", "direction": "right"})


def no_size(result: list[Region]) -> None:
    del result[0]["original_height"]


def huge(result: list[Region]) -> None:
    result[0] |= {"original_height": 10**6, "original_width": 10**6}


def turned(result: list[Region]) -> None:
    result[0]["image_rotation"] = 90


def cut_short(result: list[Region]) -> None:
    result[0]["value"]["rle"] = result[0]["value"]["rle"][:9]


def of_other_size(result: list[Region]) -> None:
    result.append(a_shape(result[0], "polygon", points=[[1, 1], [50, 1], [50, 50]]))
    result[-1]["original_width"] += 1


def long_ago(result: list[Region]) -> None:
    result[0]["value"]["brushlabels"] = ["x" * 5000]


LABEL_STUDIO = {
    rectangle: "region Ab1: a rectangle is no mask: use a brush or a polygon, or take it out",
    open_polygon: "region Ab1: its outline is open: close it",
    two_points: "region Ab1: .*three points",
    two_labels: "region new0: it has 2 labels, 'cat' and 'dog': leave one",
    a_choice: "region Ab1: a choices is no mask",
    a_relation: "a relation is no mask",
    no_size: "region new0: it has no 'original_height'",
    huge: "region new0: no picture has 1000000 x 1000000 px",
    turned: "region new0: its picture was turned by 90 degrees: turn it back",
    cut_short: "region new0: brush run lengths end too early",
    of_other_size: "a mask of",
    long_ago: "label",
}


@pytest.mark.parametrize("edit", LABEL_STUDIO, ids=lambda edit: str(edit.__name__))
def test_what_is_no_mask_in_label_studio_is_refused_by_task_and_region(
    edit: Callable[[list[Region]], None], published: Published, exports: Path, tmp_path: Path
) -> None:
    path = label_studio_file(annotations(exports, "label_studio", tmp_path / "out"), edit)
    place = re.escape(f"{path}: task 1 (/data/local-files/?d=images/sa_1.jpg): ")
    with pytest.raises(InputError, match=f"^{place}.*{LABEL_STUDIO[edit]}"):
        back(published, path, "label_studio")
    assert not saved_numbers(published.store)


def test_shape_and_label_may_be_tags_of_their_own(data: Published, tmp_path: Path) -> None:
    """A configuration with Brush and Labels in place of BrushLabels: two results of one id, one mask."""

    def edit(result: list[Region]) -> None:
        first = result[0]
        label = {**first, "type": "labels", "value": {**first["value"], "labels": ["tree"]}}
        first["type"] = "brush"
        del first["value"]["brushlabels"], label["value"]["brushlabels"]
        result.append(label)

    taken = back(
        data, label_studio_file(exported(data, tmp_path / "o", "label_studio"), edit), "label_studio"
    )
    assert taken.masks == {"confirmed": 1, "kept": len(masks_of(data)) - 1, "rejected": 0}


def test_nothing_is_kept_of_files_in_which_anything_is_wrong(
    published: Published, exports: Path, tmp_path: Path
) -> None:
    """A mask of another size in the last picture: the first ones' edits are not kept either."""
    path = label_studio_file(annotations(exports, "label_studio", tmp_path / "out"), erase_label_studio)
    tasks = tasks_of(path)
    last = next(task for task in reversed(tasks) if task["annotations"][1]["result"])
    of_other_size(last["annotations"][1]["result"])
    path.write_text(json.dumps(tasks))
    with pytest.raises(InputError, match=f"task {last['id']} .*a mask of"):
        back(published, path, "label_studio")
    assert not saved_numbers(published.store)


# CVAT


def add_shape(tag: str, **attributes: str) -> Callable[[ElementTree.Element], None]:
    def edit(image: ElementTree.Element) -> None:
        ElementTree.SubElement(image, tag, {"label": "roof", **attributes})

    return edit


def wider(image: ElementTree.Element) -> None:
    """A mask whose box was drawn wider, its run lengths not."""
    mask = next(image.iter("mask"))
    mask.set("width", str(int(mask.attrib["width"]) + 1))


def resized(image: ElementTree.Element) -> None:
    image.set("width", "10")
    image[:] = [child for child in image if child.tag == "polygon"]
    ElementTree.SubElement(image, "polygon", {"label": "a", "points": "1,1;8,1;8,8"})


def of_no_label(image: ElementTree.Element) -> None:
    del next(image.iter("mask")).attrib["label"]


CVAT: dict[str, tuple[Callable[[ElementTree.Element], None], str]] = {
    "box": (add_shape("box", xtl="1", ytl="1", xbr="5", ybr="5"), r"shape \d+ \(roof\): a box is no mask"),
    "tag": (add_shape("tag"), r"shape \d+ \(roof\): a tag is of a whole picture"),
    "skeleton": (add_shape("skeleton"), "a skeleton is no mask"),
    "polygon": (add_shape("polygon", points="1,1;2,2"), r"shape \d+ \(roof\): .*three points"),
    "no points": (add_shape("polygon"), r"shape \d+ \(roof\): it has no 'points'"),
    "wider": (wider, "shape 1 .*run lengths of"),
    "no label": (of_no_label, r"shape 1 \(None\): it has no 'label'"),
    "resized": (resized, "pixels; it has"),
}


@pytest.mark.parametrize("edit, message", CVAT.values(), ids=list(CVAT))
def test_what_is_no_mask_in_cvat_is_refused_by_image_and_shape(
    edit: Callable[[ElementTree.Element], None],
    message: str,
    published: Published,
    exports: Path,
    tmp_path: Path,
) -> None:
    path = cvat_file(annotations(exports, "cvat", tmp_path / "out"), edit)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: sa_1.jpg: .*{message}"):
        back(published, path, "cvat")
    assert not saved_numbers(published.store)


def test_cvats_zip_is_read_as_it_comes_also_with_folders_in_names(data: Published, tmp_path: Path) -> None:
    def move(image: ElementTree.Element) -> None:
        image.set("name", "batch one/sa_1.jpg")
        mask = next(image.iter("mask"))
        image.remove(mask)

    xml = cvat_file(exported(data, tmp_path / "out", "cvat"), move)
    path = tmp_path / "task.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.write(xml, cvat.ANNOTATIONS)
        packed.writestr("images/batch one/sa_1.jpg", b"a picture")
    taken = back(data, path, "cvat")
    assert taken.pictures == {SAVED: 1, SAME: NUM_ANNOTATED - 1} and taken.masks["rejected"] == 1


def test_what_is_no_export_of_images_is_refused_with_the_cure(
    published: Published, exports: Path, tmp_path: Path
) -> None:
    good = cvat_file(annotations(exports, "cvat", tmp_path / "out")).read_text()
    track = '<track id="3" label="roof"><mask frame="0"/></track></annotations>'
    extra = '<image id="99" name="holiday.jpg" width="9" height="9"/></annotations>'
    texts = {
        "track.xml": (good.replace("</annotations>", track), r"track 3 \(roof\) is of a video"),
        "extra.xml": (good.replace("</annotations>", extra), "holiday.jpg: .*take it out of the file"),
        "mesa.xml": (good.replace("sa_2.jpg", "mesa_2.jpg"), "mesa_2.jpg: is no picture"),
        "gone.xml": (good.replace("sa_2.jpg", "sa_4711.jpg"), "sa_4711.jpg: .*has no picture 4711"),
    }
    for name, (text, message) in texts.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=f"^{re.escape(str(tmp_path / name))}: .*{message}"):
            back(published, tmp_path / name, "cvat")

    with zipfile.ZipFile(tmp_path / "coco.zip", "w") as packed:
        packed.writestr("annotations/instances_default.json", "{}")
    with pytest.raises(
        InputError, match=r'coco.zip: has no annotations.xml: export .* "CVAT for images 1.1"'
    ):
        back(published, tmp_path / "coco.zip", "cvat")
    (tmp_path / "cut.zip").write_bytes((tmp_path / "coco.zip").read_bytes()[:-30])
    with pytest.raises(InputError, match=r"cut.zip: CVAT's export cannot be read"):
        back(published, tmp_path / "cut.zip", "cvat")


# FiftyOne


def sample_edits() -> dict[str, tuple[Callable[[dict[str, Any]], None], str]]:
    line = {"_cls": "Polyline", "label": "roof", "points": [[[0.1, 0.1], [0.5, 0.1]]]}

    def polylines(sample: dict[str, Any]) -> None:
        sample["lines"] = {"_cls": "Polylines", "polylines": [line]}

    def in_place(sample: dict[str, Any]) -> None:
        sample[fiftyone.FIELD] = {"_cls": "Polylines", "polylines": [line]}

    def segmentation(sample: dict[str, Any]) -> None:
        sample["ground_truth"] = {"_cls": "Segmentation", "mask_path": "m.png"}

    def no_field(sample: dict[str, Any]) -> None:
        del sample[fiftyone.FIELD]

    def no_metadata(sample: dict[str, Any]) -> None:
        sample["metadata"] = None

    def a_box(sample: dict[str, Any]) -> None:
        sample[fiftyone.FIELD]["detections"].append({"label": "roof", "bounding_box": [0, 0, 0.5, 0.5]})

    def first(sample: dict[str, Any], **values: Any) -> None:
        sample[fiftyone.FIELD]["detections"][0] |= values

    return {
        "polylines": (polylines, r"its field 'lines' holds Polylines.*exclude_fields\('lines'\)"),
        "in place": (in_place, "its field 'masks' holds Polylines"),
        "segmentation": (segmentation, "its field 'ground_truth' holds Segmentation"),
        "no field": (no_field, "it has no field 'masks': export with it"),
        "no metadata": (no_metadata, r"compute_metadata\(\)"),
        "a box": (a_box, r"detection \d+ \(roof\): its box has no mask: draw one, or take the box out"),
        "far box": (lambda one: first(one, bounding_box=[0, 0, 1e9, 1]), "detection 1 .*0 to 1"),
        "no number": (lambda one: first(one, bounding_box=[0, 0, float("nan"), 1]), "detection 1 .*0 to 1"),
        "no array": (lambda one: first(one, mask={"$binary": {"base64": "eJwDAAAAAAE="}}), "detection 1"),
        "no box": (lambda one: first(one, bounding_box=None), "detection 1"),
        "lost png": (lambda one: first(one, mask=None, mask_path="fields/x.png"), "detection 1 .*x.png"),
    }


@pytest.mark.parametrize("name", sample_edits())
def test_what_is_no_mask_in_fiftyone_is_refused_by_sample_and_label(
    name: str, published: Published, exports: Path, tmp_path: Path
) -> None:
    edit, message = sample_edits()[name]
    path = fiftyone_folder(annotations(exports, "fiftyone", tmp_path / "out"), edit)
    place = re.escape(f"{path / fiftyone.SAMPLES}: images/sa_1.jpg: ")
    with pytest.raises(InputError, match=f"^{place}.*{message}"):
        back(published, path, "fiftyone")
    assert not saved_numbers(published.store)


def test_a_sample_removed_stays_and_a_label_renamed_comes_back(data: Published, tmp_path: Path) -> None:
    def edit(sample: dict[str, Any]) -> None:
        sample[fiftyone.FIELD]["detections"][0]["label"] = "roof"
        sample["predictions"] = {"_cls": "Detections", "detections": []}
        sample["uniqueness"] = 0.5

    path = fiftyone_folder(exported(data, tmp_path / "out", "fiftyone"), edit)
    found = json.loads((path / fiftyone.SAMPLES).read_text())
    found["samples"] = [one for one in found["samples"] if one[fiftyone.KEY] != "000000002"]
    (path / fiftyone.SAMPLES).write_text(json.dumps(found))
    taken = back(data, path, "fiftyone")
    assert taken.pictures == {SAVED: 1, SAME: NUM_ANNOTATED - 2} and taken.absent == 1
    assert taken.masks == {"confirmed": 1, "kept": len(masks_of(data)) - 1, "rejected": 0}


# Names


@pytest.mark.parametrize(
    "name",
    [
        "sa_17.jpg",
        "uploads/ab12-sa_17.jpg",
        "a\\b\\sa_17.jpg",
        "/data/local-files/?d=images%2Fsa_17.jpg",
        "https://x/sa_17.jpg?X-Amz-Signature=a.b",
        "sa_017.JPG",
    ],
)
def test_a_pictures_name_is_known_again(name: str) -> None:
    assert image_id_of(name) == 17


@pytest.mark.parametrize(
    "name",
    ["mesa_17.jpg", "my_sa_17.jpg", "sa_17", "sa_17b.jpg", "sa_.jpg", "sa_17.jpg.zip", "sa_²1.jpg", ""],
)
def test_no_other_name_is_taken_for_one(name: str) -> None:
    with pytest.raises(InputError, match="take it out of the file"):
        image_id_of(name)
