"""Names in a tar, a folder or a prefix become samples as WebDataset has it; which field is the photograph."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from webdataset.tariterators import base_plus_ext

from maskmill.storage.plan.grouped import key_and_field
from maskmill.storage.plan.inputs import list_inputs
from maskmill.storage.plan.make_plan import PlanSummary, make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.plan.walk import InputFile
from maskmill.storage.stores.open import open_store


def write_tar(path: Path, names: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in names.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def write_folder(folder: Path, names: Mapping[str, bytes]) -> Path:
    for name, data in names.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def planned(
    tmp_path: Path, names: Mapping[str, bytes], photograph: str | None = None, *, within: str = "tar"
) -> tuple[dict[str, str | None], PlanSummary]:
    """Name -> caption, and the summary; `within` is "tar", "folder" or an address."""
    if within == "tar":
        top = str(write_tar(tmp_path / "in.tar", names))
    elif within == "folder":
        top = str(write_folder(tmp_path / "in", names))
    else:
        top = within
        for name, data in names.items():
            open_store(top).put(name, data)
    store = open_store(tmp_path / "dataset")
    summary = make_plan(store, [top], shard_size=100, photograph=photograph)
    plan = load_plans(store)
    images = [image for shard in range(plan.num_shards) for image in plan.images(shard)]
    return {image.member or image.source.removeprefix(f"{top}/"): image.caption for image in images}, summary


def unlike(*names: str) -> dict[str, bytes]:
    return {name: name.encode() for name in names}


GROUPED: dict[str, tuple[dict[str, bytes], dict[str, str | None], dict[str, int]]] = {
    "a label map": (
        unlike("1.jpg", "1.seg.png", "1.txt", "2.jpg"),
        {"1.jpg": "1.txt", "2.jpg": None},
        {"(field seg.png)": 1},
    ),
    "a dotted photograph": (unlike("1.image.jpg", "1.txt"), {"1.image.jpg": "1.txt"}, {}),
    "open_clip": (unlike("s.input.jpg", "s.outputs.txt"), {"s.input.jpg": "s.outputs.txt"}, {}),
    "a photograph and a mask": (
        unlike("1.image.jpg", "1.mask.png"),
        {"1.image.jpg": None},
        {"(field mask.png)": 1},
    ),
    "a pair": (
        unlike("1.left.png", "1.right.png", "1.txt"),
        {"1.left.png": "1.txt", "1.right.png": "1.txt"},
        {},
    ),
    "camera names with dots": (
        unlike("img.001.jpg", "img.001.txt", "img.002.jpg", "img.002.txt"),
        {"img.001.jpg": "img.001.txt", "img.002.jpg": "img.002.txt"},
        {},
    ),
    "dots in folders": (
        unlike("v1.2/a.jpg", "v1.2/a.txt", "v1.2/b.jpg"),
        {"v1.2/a.jpg": "v1.2/a.txt", "v1.2/b.jpg": None},
        {},
    ),
    "capitals": (unlike("A.JPG", "A.Seg.PNG", "A.TXT"), {"A.JPG": "A.TXT"}, {"(field seg.png)": 1}),
    "depth and normals": (
        unlike("k.depth.png", "k.jpg", "k.normal.png"),
        {"k.jpg": None},
        {"(field depth.png)": 1, "(field normal.png)": 1},
    ),
    "numbered beside a plain one": (
        unlike("img.0001.jpg", "img.0002.jpg", "img.0002.txt", "img.png"),
        {"img.0001.jpg": None, "img.0002.jpg": "img.0002.txt", "img.png": None},
        {},
    ),
    "a folder that begins like a picture": (
        unlike("a.b/c.jpg", "a.b/c.txt", "a.image.jpg", "a.txt"),
        {"a.b/c.jpg": "a.b/c.txt", "a.image.jpg": "a.txt"},
        {},
    ),
    "more than a sample may have": (
        unlike(*(f"img.{i:04d}.{kind}" for i in range(70) for kind in ("jpg", "txt"))),
        {f"img.{i:04d}.jpg": f"img.{i:04d}.txt" for i in range(70)},
        {},
    ),
    "words beside too many": (
        unlike("s.txt", *(f"s.v{i:03d}.jpg" for i in range(70)), "s.v070.png"),
        {f"s.v{i:03d}.{'png' if i == 70 else 'jpg'}": "s.txt" for i in range(71)},
        {},
    ),
}


@pytest.mark.parametrize("within", ["tar", "folder", "s3"])
@pytest.mark.parametrize("name", GROUPED)
def test_samples_are_grouped_as_the_format_does(
    name: str, within: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    names, expected, skipped = GROUPED[name]
    place = f"{request.getfixturevalue('s3_bucket')}/in" if within == "s3" else within
    found, summary = planned(tmp_path, names, within=place)
    assert found == expected and summary.skipped_by_ending == skipped


@pytest.mark.parametrize("within", ["local", "s3"])
def test_a_picture_asked_for_by_name_has_its_samples_caption(
    within: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    names = unlike("1.image.jpg", "1.seg.png", "1.txt", "2.jpg", "2.words.txt", "1.image/x.jpg")
    top = str(write_folder(tmp_path / "in", names))
    if within == "s3":
        top = f"{request.getfixturevalue('s3_bucket')}/in"
        for name, data in names.items():
            open_store(top).put(name, data)
    expected = {"1.image.jpg": "1.txt", "2.jpg": "2.words.txt"}

    # One by one, in a list, by a pattern: what lies beside is a picture only if it is asked for too
    named = {**expected, "1.seg.png": "1.txt"}
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{top}/{name}\n" for name in named))
    asked = ([f"{top}/{name}" for name in expected], [f"{top}/*.jpg"], [f"{top}/[12].*[ag]*jpg"])
    found = [list_inputs(some) for some in (*asked, [str(listed)])]
    captions = [
        {
            one.source.removeprefix(f"{top}/"): one.caption_source.removeprefix(f"{top}/")
            for one in some
            if isinstance(one, InputFile)
        }
        for some in found
    ]
    assert captions == [expected, expected, {"1.image.jpg": "1.txt"}, named]


@pytest.mark.parametrize("within", ["tar", "folder"])
@pytest.mark.parametrize(
    ("photograph", "expected"),
    [("seg.png", {"1.seg.png"}), (".jpg", {"1.jpg", "2.jpg"}), ("right.png", set[str]())],
)
def test_the_photograph_can_be_said(photograph: str, expected: set[str], within: str, tmp_path: Path) -> None:
    names = unlike("1.jpg", "1.seg.png", "2.jpg", "3.left.png")
    if not expected:
        told = "ingest.photograph='right.png' names"
        with pytest.raises(ValueError, match=told):
            planned(tmp_path, names, photograph, within=within)
        return
    found, summary = planned(tmp_path, names, photograph, within=within)
    assert set(found) == expected
    assert sum(summary.skipped_by_ending.values()) == len(names) - len(expected)


def test_keys_are_those_of_webdatasets_reader() -> None:
    names = ("0001.jpg", "0001.seg.png", "0002.image.jpg", "d.1/x.y.png", "d.1/x.cls", "a/b.c/z.JPG")
    for name in names:
        key, field = base_plus_ext(name)
        assert key_and_field(name) == (key, field.lower())


@pytest.mark.parametrize("in_tar", [True, False])
def test_captions_in_other_encodings_are_counted(in_tar: bool, tmp_path: Path) -> None:
    names = {"1.jpg": b"1", "1.txt": "Straße".encode("latin-1"), "2.jpg": b"2", "2.txt": "Straße".encode()}
    names |= {"3.jpg": b"3", "3.txt": "two dogs".encode("utf-16")}
    folder = tmp_path / "photos"
    folder.mkdir()
    if in_tar:
        write_tar(folder / "in.tar", names)
    else:
        for name, data in names.items():
            (folder / name).write_bytes(data)
    store = open_store(tmp_path / "dataset")
    summary = make_plan(store, [str(folder)], shard_size=10)
    assert summary.skipped_by_ending == {"(captions that are not UTF-8)": 2}
    assert [image.caption for image in load_plans(store).images(0)] == [None, "Straße", None]


@pytest.mark.parametrize("name", ["run[1]", "a*b", "what?", "[abc]"])
def test_a_prefix_of_s3_is_a_name_before_it_is_a_pattern(name: str, s3_bucket: str, tmp_path: Path) -> None:
    top = open_store(f"{s3_bucket}/photos")
    top.put(f"{name}/x.jpg", b"1")
    top.put("run1/y.jpg", b"2")
    top.put("a/z.jpg", b"3")
    store = open_store(tmp_path / "dataset")
    make_plan(store, [f"{top.root}/{name}"], shard_size=10)
    assert [image.source for image in load_plans(store).images(0)] == [f"{top.root}/{name}/x.jpg"]


def test_a_pattern_of_s3_still_matches(s3_bucket: str, tmp_path: Path) -> None:
    top = open_store(f"{s3_bucket}/photos")
    for name in ("run1/y.jpg", "run2/y.jpg", "run3/y.jpg"):
        top.put(name, name.encode())
    store = open_store(tmp_path / "dataset")
    make_plan(store, [f"{top.root}/run[12]/*.jpg"], shard_size=10)
    assert len(load_plans(store).images(0)) == 2
