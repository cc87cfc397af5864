"""CVAT's exports as strangers leave them: right, or refused by image, shape and cure."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from maskmill.storage.dataset.saves import saved_numbers
from maskmill.storage.errors import InputError
from maskmill.workers.tools import cvat
from maskmill.workers.tools.take_back import SAME, SAVED
from tests.workers.published import NUM_ANNOTATED, Published
from tests.workers.tools.editors import (
    annotations,
    back,
    cvat_file,
    exported,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


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
