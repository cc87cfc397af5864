from __future__ import annotations

import os
import socket
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from maskmill.storage.errors import BucketNotFound, InputError
from maskmill.storage.plan.inputs import list_inputs
from maskmill.storage.plan.walk import InputFile, InputProblem
from maskmill.storage.stores.open import open_store
from tests.storage.stores.test_stores import open_to_all, run_as_nobody

CONTENT = {
    "a.jpg": b"a",
    "a.txt": b"a cat",
    "b/c.PNG": b"c",
    "b/c.json": b'{"caption": "a dog"}',
    "b/d/e.webp": b"e",
    "b.tar": b"not looked into",
    "notes.txt": b"beside no image",
    "x.xml": b"<x/>",
    "x": b"",
    ".hidden.jpg": b"h",
    ".git/f.jpg": b"f",
}


def fill_folder(folder: Path, content: Mapping[str, bytes] = CONTENT) -> str:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return str(folder)


def fill_prefix(address: str, content: Mapping[str, bytes] = CONTENT) -> str:
    store = open_store(address)
    for name, data in content.items():
        store.put_if_absent(name, data)
    return address


@pytest.fixture(params=["local", "s3"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return fill_folder(tmp_path / "photos")
    return fill_prefix(f"{request.getfixturevalue('s3_bucket')}/photos")


def files(*inputs: str, dataset_root: str | None = None) -> list[InputFile]:
    found = list(list_inputs(inputs, dataset_root=dataset_root))
    assert all(isinstance(one, InputFile) for one in found), found
    return [one for one in found if isinstance(one, InputFile)]


def names_under(top: str, found: list[InputFile]) -> list[str]:
    return [one.source.removeprefix(f"{top}/") for one in found]


def test_everything_below_is_found_in_order_and_the_rest_counted(filled: str) -> None:
    listing = list_inputs([filled])
    found = [one for one in listing if isinstance(one, InputFile)]
    assert sorted(names_under(filled, found)) == ["a.jpg", "b.tar", "b/c.PNG", "b/d/e.webp"]
    assert names_under(filled, found) == names_under(filled, files(filled)), "always the same order"
    assert {one.source: one.kind for one in found}[f"{filled}/b.tar"] == "tar"
    skipped = dict(listing.skipped)
    assert skipped.pop("(hidden)") == 2
    assert skipped == {".txt": 1, ".xml": 1, "(no ending)": 1}


def test_captions_beside_images_are_remembered(filled: str) -> None:
    captions = {one.source: one.caption_source for one in files(filled)}
    assert captions == {
        f"{filled}/a.jpg": f"{filled}/a.txt",
        f"{filled}/b/c.PNG": f"{filled}/b/c.json",
        f"{filled}/b/d/e.webp": "",
        f"{filled}/b.tar": "",
    }


def test_sizes_and_etags_tell_files_apart(filled: str) -> None:
    first = {one.source: (one.size_bytes, one.etag) for one in files(filled)}
    assert first == {one.source: (one.size_bytes, one.etag) for one in files(filled)}
    assert first[f"{filled}/b.tar"][0] == len(b"not looked into")
    assert len({etag for _, etag in first.values()}) == len(first)


def test_a_single_image_and_a_single_tar_are_inputs(filled: str) -> None:
    assert names_under(filled, files(f"{filled}/b/c.PNG", f"{filled}/b.tar")) == ["b/c.PNG", "b.tar"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("b/*", ["b/c.PNG", "b/d/e.webp"]),
        ("**/*.webp", ["b/d/e.webp"]),
        ("**/*.[jp][pn]g", ["a.jpg"]),
        ("**/[!x].PN?", ["b/c.PNG"]),
    ],
)
def test_globs(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    top = fill_folder(tmp_path / "photos")
    assert names_under(top, files(f"{top}/{pattern}")) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("b/*", ["b/c.PNG"]),
        ("**/*.webp", ["b/d/e.webp"]),
        ("b/**/[!x].*", ["b/c.PNG", "b/d/e.webp"]),
    ],
)
def test_globs_on_s3(s3_bucket: str, pattern: str, expected: list[str]) -> None:
    top = fill_prefix(f"{s3_bucket}/photos")
    assert names_under(top, files(f"{top}/{pattern}")) == expected


def test_a_name_with_glob_characters_is_a_name_first(tmp_path: Path) -> None:
    top = fill_folder(tmp_path / "photos [2020]")
    assert len(files(top)) == 4


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_manifests(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    elsewhere = fill_folder(tmp_path / "elsewhere", {"z.jpg": b"z"})
    lines = [
        "# comment",
        "",
        "  b/c.PNG  ",
        "gone.jpg",
        f"{elsewhere}/z.jpg",
        "x.xml",
        "http://h/x.jpg",
        "b.tar",
        "./b/../a.jpg",
    ]
    content = {**CONTENT, "list.txt": "\r\n".join(lines).encode("utf-8-sig")}
    if kind == "local":
        top = fill_folder(tmp_path / "photos", content)
    else:
        top = fill_prefix(f"{request.getfixturevalue('s3_bucket')}/photos", content)
    found = list(list_inputs([f"{top}/list.txt"]))
    seen = [one.source.removeprefix(f"{top}/") for one in found if isinstance(one, InputFile)]
    problems = {
        one.source.removeprefix(f"{top}/"): one.reason for one in found if isinstance(one, InputProblem)
    }
    if kind == "local":
        assert seen == ["b/c.PNG", f"{elsewhere}/z.jpg", "b.tar", "a.jpg"]
        assert problems == {"gone.jpg": "missing", "x.xml": "unsupported", "http://h/x.jpg": "unsupported"}
    else:
        assert seen == ["b/c.PNG", "b.tar", "a.jpg"]
        assert next(one for one in found if isinstance(one, InputFile)).caption_source == f"{top}/b/c.json"
        assert problems.pop("gone.jpg") == "missing"
        assert sorted(problems.values()) == ["missing", "unsupported", "unsupported"]


def test_what_cannot_be_opened_is_a_problem(tmp_path: Path) -> None:
    top = Path(fill_folder(tmp_path / "photos", {"a.jpg": b"a", "empty.jpg": b""}))
    os.mkfifo(top / "pipe.jpg")
    (top / "nowhere.jpg").symlink_to("gone")
    (top / "self.jpg").symlink_to("self.jpg")
    (top / "folder.jpg").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        os.chdir(top)
        bound.bind("socket.jpg")
        found = list(list_inputs([str(top)]))
    problems = {Path(one.source).name: one.reason for one in found if isinstance(one, InputProblem)}
    assert problems == {
        "empty.jpg": "empty_file",
        "nowhere.jpg": "missing",
        "pipe.jpg": "not_a_file",
        "self.jpg": "unreadable",
        "socket.jpg": "not_a_file",
    }


def test_link_loops_end_and_links_are_followed_once(tmp_path: Path) -> None:
    top = Path(fill_folder(tmp_path / "photos", {"a/x.jpg": b"x", "b/y.jpg": b"y"}))
    outside = fill_folder(tmp_path / "outside", {"z.jpg": b"z"})
    (top / "a" / "up").symlink_to("..")
    (top / "c").symlink_to("b")
    (top / "d").symlink_to(outside)
    listing = list_inputs([str(top)])
    assert names_under(str(top), [one for one in listing if isinstance(one, InputFile)]) == [
        "a/x.jpg",
        "b/y.jpg",
        "d/z.jpg",
    ]
    assert listing.skipped == {"(folder reached twice)": 2}
    assert len(files(f"{top}/**")) == 3


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    top = tmp_path / "photos"
    top.mkdir()
    (top / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"1")
    (top / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"coffee")
    (found,) = files(str(top))
    assert found.source == f"file://{top}/caf%E9.jpg"
    assert found.caption_source == f"file://{top}/caf%E9.txt"


# Refused before work


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nowhere", "does not exist"),
        ("empty", "no images in it .found nothing"),
        (
            "texts",
            r"no images in it .found 2 .md, 1 .hidden., 1 .csv.*give images .jpg, jpeg, jpe, ",
        ),
        ("texts/a.md", "not a folder, an image, a .tar or a .txt manifest"),
        ("texts/*.jpg", "nothing matches"),
        ("texts/*.csv", "no images in it .found 1 .csv"),
        ("blank.txt", "no images in it"),
        ("x.tar.gz", "decompress it to .tar"),
        ("x.TGZ", "decompress it to .tar"),
        ("zero.jpg", "0 bytes"),
    ],
)
def test_inputs_without_images_are_refused_with_what_was_found(tmp_path: Path, name: str, told: str) -> None:
    fill_folder(
        tmp_path,
        {
            "texts/a.md": b"",
            "texts/b.md": b"",
            "texts/c.csv": b"",
            "texts/.d": b"",
            "blank.txt": b"# nothing\n\n",
            "x.tar.gz": b"z",
            "x.TGZ": b"z",
            "zero.jpg": b"",
        },
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=told) as caught:
        list_inputs([str(tmp_path / name)])
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "told"), [([], "no input given"), ([""], "empty path"), (["https://h/a.jpg"], "download it")]
)
def test_senseless_inputs_are_refused(inputs: list[str], told: str) -> None:
    with pytest.raises(InputError, match=told):
        list_inputs(inputs)


def test_the_dataset_is_no_input_of_itself(tmp_path: Path) -> None:
    top = fill_folder(tmp_path / "photos")
    dataset = tmp_path / "photos" / "b"
    (tmp_path / "link").symlink_to(dataset)
    for address in (dataset, dataset / "d", tmp_path / "link"):
        with pytest.raises(InputError, match="inside the dataset"):
            list_inputs([str(address)], dataset_root=str(dataset))
    listing = list_inputs([top], dataset_root=str(dataset))
    assert names_under(top, [one for one in listing if isinstance(one, InputFile)]) == ["a.jpg", "b.tar"]
    assert listing.skipped["(the dataset itself)"] == 1


def test_the_dataset_is_no_input_of_itself_on_s3(s3_bucket: str) -> None:
    top = fill_prefix(f"{s3_bucket}/photos")
    with pytest.raises(InputError, match="inside the dataset"):
        list_inputs([f"{top}/b/d"], dataset_root=f"{top}/b")
    listing = list_inputs([top], dataset_root=f"{top}/b")
    assert names_under(top, [one for one in listing if isinstance(one, InputFile)]) == ["a.jpg", "b.tar"]
    assert listing.skipped["(the dataset itself)"] == 3


def test_missing_buckets_and_prefixes_are_told(s3_bucket: str) -> None:
    with pytest.raises(BucketNotFound, match="no-such"):
        list_inputs(["s3://no-such-bucket-here/x"])
    with pytest.raises(InputError, match=r"no images in it .found nothing"):
        list_inputs([f"{s3_bucket}/nothing"])


def test_captions_on_s3_are_found_whatever_lies_between(s3_bucket: str) -> None:
    content = dict.fromkeys(
        ("p/a.jpg", "p/a.k.jpg", "p/a.json", "p/a.webp", "p/a-b.jpg", "p/a.txt", "p/a.k.txt", "p/z.json"),
        b"1",
    )
    top = fill_prefix(f"{s3_bucket}/photos", content)
    listing = list_inputs([top])
    found = {
        one.source.removeprefix(f"{top}/p/"): one.caption_source.removeprefix(f"{top}/p/")
        for one in listing
        if isinstance(one, InputFile)
    }
    assert found == {"a.jpg": "a.txt", "a.k.jpg": "a.k.txt", "a.webp": "a.txt", "a-b.jpg": ""}
    assert listing.skipped == {".json": 1}, "a.json has an image beside it, z.json none"


def test_unreadable_folders_are_named(tmp_path: Path) -> None:
    open_to_all(tmp_path)
    top = Path(fill_folder(tmp_path / "photos", {"a.jpg": b"a", "closed/b.jpg": b"b", "listed/c.jpg": b"c"}))
    (top / "closed").chmod(0)
    (top / "listed").chmod(0o744)
    shut = Path(fill_folder(tmp_path / "shut", {"a.jpg": b"a"}))
    shut.chmod(0)
    code = (
        "from maskmill.storage.plan.inputs import list_inputs\n"
        "from maskmill.storage.errors import InputError\n"
        "for one in list_inputs([sys.argv[1]]):\n"
        "    print(type(one).__name__, one.source, getattr(one, 'reason', ''))\n"
        "for path in (sys.argv[2], sys.argv[2] + '/a.jpg'):\n"
        "    try:\n        list_inputs([path])\n"
        "    except InputError as exc:\n        print('refused', exc)"
    )
    try:
        done = run_as_nobody(code, str(top), str(shut))
    finally:
        for folder in (top / "closed", top / "listed", shut):
            folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:3] == [
        f"InputFile {top}/a.jpg ",
        f"InputProblem {top}/closed unreadable",
        f"InputProblem {top}/listed/c.jpg unreadable",
    ]
    assert done.stdout.count(f"refused {shut}") == 2
    assert "give this user access" in done.stdout


def test_a_tar_is_not_opened_by_listing(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w"):
        pass
    (found,) = files(str(path))
    assert (found.kind, found.size_bytes) == ("tar", path.stat().st_size)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-8-sig", "utf-8"])
def test_a_list_of_another_encoding_is_told(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    bom = "\ufeff" if encoding == "utf-16-be" else ""
    (tmp_path / "list.txt").write_bytes(f"{bom}a.jpg\n".encode(encoding))
    if "16" in encoding:
        with pytest.raises(InputError, match="the list is UTF-16; save it as UTF-8"):
            list(list_inputs([str(tmp_path / "list.txt")]))
    else:
        (found,) = list_inputs([str(tmp_path / "list.txt")])
        assert isinstance(found, InputFile)


@pytest.mark.parametrize("line", ["s3://me:pl4nted/x@bucket/a.jpg", "s3:///a.jpg"])
def test_an_address_that_is_none_costs_its_own_line(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    (tmp_path / "a.jpg").write_bytes(b"picture")
    (tmp_path / "list.txt").write_text(f"{line}\na.jpg\n")
    problem, picture = list_inputs([str(tmp_path / "list.txt")])
    assert isinstance(problem, InputProblem) and problem.reason == "unsupported"
    assert "pl4nted" not in problem.source + problem.detail
    assert isinstance(picture, InputFile) and picture.source.endswith("a.jpg")
