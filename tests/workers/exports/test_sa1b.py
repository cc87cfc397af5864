"""SA-1B tars as others read them: tarfile, webdataset, pycocotools."""

from __future__ import annotations

import gc
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps
from pycocotools import mask as coco_mask

from maskmill.pipeline.annotation import from_sa1b
from maskmill.storage.care.forget import forget
from maskmill.storage.dataset.generations import latest
from maskmill.storage.dataset.join import join
from maskmill.storage.errors import DamagedObject, DatasetError
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports import parts as parts_module
from maskmill.workers.exports import sa1b as sa1b_module
from maskmill.workers.exports.export import export
from maskmill.workers.exports.report import ExportError
from tests.workers.published import (
    CAPTION,
    HOSTILE_NAME,
    NUM_ANNOTATED,
    Published,
    masks_or_none,
    publish_dataset,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Published:
    return publish_dataset(tmp_path_factory.mktemp("published"))


def members(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                yield member.name, content.read()


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(content) for name, content in members(folder) if name.endswith(".json")]


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools on numpy 2
def test_every_mask_has_the_area_and_box_of_its_record(data: Published, tmp_path: Path) -> None:
    report = export(data.store, data.generation, str(tmp_path / "out"))
    found = records(tmp_path / "out")
    assert len(found) == report.num_images == NUM_ANNOTATED
    assert sum(len(record["annotations"]) for record in found) == report.num_masks > NUM_ANNOTATED
    for record in found:
        size = [record["image"]["height"], record["image"]["width"]]
        for annotation in record["annotations"]:
            rle = {**annotation["segmentation"], "counts": annotation["segmentation"]["counts"].encode()}
            assert annotation["segmentation"]["size"] == size
            assert int(coco_mask.area(rle)) == annotation["area"] > 0
            rows, columns = np.nonzero(coco_mask.decode(rle))
            corners = [columns.min(), rows.min(), columns.max() - columns.min(), rows.max() - rows.min()]
            assert annotation["bbox"] == [float(value) for value in corners], "between inclusive corners"
            assert {"output_token", "parent"} <= annotation.keys(), "our own fields are kept"


def test_images_lie_under_their_masks_upright(data: Published, tmp_path: Path) -> None:
    export(data.store, data.generation, str(tmp_path / "out"))
    contents = dict(members(tmp_path / "out"))
    turned = 0
    for name, content in contents.items():
        if not name.endswith(".json"):
            continue
        record = json.loads(content)
        assert record["image"]["file_name"] == name.replace(".json", ".jpg")
        image = Image.open(io.BytesIO(contents[record["image"]["file_name"]]))
        assert image.format == "JPEG" and image.size == (record["image"]["width"], record["image"]["height"])
        assert ImageOps.exif_transpose(image).size == image.size
        turned += image.height > image.width
        pixels = np.asarray(image.convert("RGB"))
        assert masks_or_none([pixels])[0].annotations == from_sa1b(record).annotations, "the very pixels"
    assert turned == 2


def test_conforming_images_are_copied_byte_for_byte(data: Published, tmp_path: Path) -> None:
    export(data.store, data.generation, str(tmp_path / "out"))
    written = {content for name, content in members(tmp_path / "out") if name.endswith(".jpg")}
    for name in ("0.jpg", "1.jpg", "2.jpg", HOSTILE_NAME):
        assert (data.inputs / name).read_bytes() in written


def test_names_sources_and_captions(data: Published, tmp_path: Path) -> None:
    export(data.store, data.generation, str(tmp_path / "out"))
    infos = [record["image"] for record in records(tmp_path / "out")]
    by_source = {Path(info["source"]).name: info for info in infos}
    assert by_source[HOSTILE_NAME]["caption"] == CAPTION
    assert "caption" not in by_source["0.jpg"]
    assert by_source["z.tar::a.jpg"]["key"] == f"{by_source['z.tar::a.jpg']['image_id']:09d}"
    names = [name for name, _ in members(tmp_path / "out")]
    assert names == [f"sa_{info['image_id']}.{ending}" for info in infos for ending in ("jpg", "json")]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_plain_webdataset_reads_it(data: Published, tmp_path: Path) -> None:
    import webdataset

    report = export(data.store, data.generation, str(tmp_path / "out"), max_images=4)
    urls = [str(tmp_path / "out" / file.name) for file in report.files]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [set(sample) >= {"jpg", "json"} for sample in samples] == [True] * NUM_ANNOTATED
    gc.collect()  # webdataset leaves its files open


@pytest.mark.parametrize("limits", [{"max_images": 4}, {"max_images": 1}, {"max_bytes": 1}])
def test_tars_are_cut_at_their_limits(data: Published, tmp_path: Path, limits: dict[str, int]) -> None:
    report = export(data.store, data.generation, str(tmp_path / "out"), **limits)  # type: ignore[arg-type]
    size = limits.get("max_images", 1)
    assert [file.num_images for file in report.files] == [size] * (NUM_ANNOTATED // size) + [1] * (size == 4)
    assert len(records(tmp_path / "out")) == NUM_ANNOTATED


def test_no_tar_is_larger_than_its_limit(data: Published, tmp_path: Path) -> None:
    limit = 16_384
    report = export(data.store, data.generation, str(tmp_path / "out"), max_bytes=limit)
    assert len(report.files) > 1
    assert max(file.num_images for file in report.files) > 1
    assert all(file.size_bytes <= limit + 10_240 for file in report.files), "tars are padded to 10 KiB"


def test_the_report_and_export_json_account_for_everything(data: Published, tmp_path: Path) -> None:
    report = export(data.store, data.generation, str(tmp_path / "out"), max_images=4)
    assert report.rejects == {"not_an_image": 1}
    assert report.num_unannotated == 0 and not report.already_complete
    record = json.loads((tmp_path / "out" / "export.json").read_bytes())
    assert (record["num_images"], record["generation"]) == (NUM_ANNOTATED, 1)
    assert record["rejects"] == {"not_an_image": 1}
    for file in record["files"]:
        content = (tmp_path / "out" / file["name"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file["size_bytes"], file["sha256"])
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left == {"export.json", *(file["name"] for file in record["files"])}


def test_done_again_it_only_says_so(data: Published, tmp_path: Path) -> None:
    first = export(data.store, data.generation, str(tmp_path / "out"))
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    second = export(data.store, data.generation, str(tmp_path / "out"))
    assert second.already_complete and second.files == first.files and second.rejects == first.rejects
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


def test_two_exports_are_equal(data: Published, tmp_path: Path) -> None:
    first = export(data.store, data.generation, str(tmp_path / "first"))
    second = export(data.store, data.generation, str(tmp_path / "second"))
    assert first.files == second.files


def test_a_foreign_folder_is_left_alone(data: Published, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(ExportError, match=r"not empty \(it holds thesis\.tex\)"):
        export(data.store, data.generation, str(tmp_path / "mine"))
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_another_export_is_left_alone(data: Published, tmp_path: Path) -> None:
    export(data.store, data.generation, str(tmp_path / "out"))
    with pytest.raises(ExportError, match="its options is"):
        export(data.store, data.generation, str(tmp_path / "out"), max_images=3)
    with pytest.raises(ExportError, match="its format is 'sa1b', this one's is 'coco'"):
        export(data.store, data.generation, str(tmp_path / "out"), format="coco")


def test_a_complete_export_that_lost_a_tar_is_not_called_complete(data: Published, tmp_path: Path) -> None:
    export(data.store, data.generation, str(tmp_path / "out"))
    (tmp_path / "out" / "sa_000000.tar").unlink()
    with pytest.raises(ExportError, match=r"sa_000000\.tar is missing"):
        export(data.store, data.generation, str(tmp_path / "out"))


def test_a_killed_export_goes_on_after_its_last_whole_tar(
    data: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export(data.store, data.generation, str(tmp_path / "whole"), max_images=2)
    write, done = sa1b_module.write_shard, []

    def dies_at_the_third(*args: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(args[1])
        return write(*args)

    monkeypatch.setattr(sa1b_module, "write_shard", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        export(data.store, data.generation, str(tmp_path / "out"), max_images=2)
    assert not (tmp_path / "out" / "export.json").exists()
    done.clear()
    monkeypatch.setattr(sa1b_module, "write_shard", lambda *args: (done.append(args[1]), write(*args))[1])
    seen: list[int] = []
    report = export(data.store, data.generation, str(tmp_path / "out"), max_images=2, progress=seen.append)
    assert done == ["sa_000002.tar", "sa_000003.tar", "sa_000004.tar"]
    assert seen == list(range(5, NUM_ANNOTATED + 1))
    assert report.files == whole.files


def test_a_part_that_was_changed_since_is_written_again(
    data: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same size: only its sum tells."""
    whole = export(data.store, data.generation, str(tmp_path / "whole"), max_images=2)
    monkeypatch.setattr(parts_module, "finish", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(data.store, data.generation, str(tmp_path / "out"), max_images=2)
    monkeypatch.undo()
    part = tmp_path / "out" / "sa_000001.tar"
    content = bytearray(part.read_bytes())
    content[700] ^= 1
    part.write_bytes(bytes(content))
    report = export(data.store, data.generation, str(tmp_path / "out"), max_images=2)
    assert report.files == whole.files
    assert part.read_bytes() == (tmp_path / "whole" / "sa_000001.tar").read_bytes()


def stopped(*args: object) -> None:
    raise KeyboardInterrupt


def test_an_export_during_which_an_image_was_forgotten_is_not_finished(
    data: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data.store.root, tmp_path / "copy")
    store = open_store(tmp_path / "copy")
    generation = latest(store)
    assert generation is not None
    key = next(join(store, generation, ("masks",))).key

    def forgets(*args: object) -> dict[str, int]:
        forget(store, [key], created_utc="2026-01-01T00:00:00+00:00")
        return {}

    monkeypatch.setattr(parts_module, "count_rejects", forgets)
    with pytest.raises(DatasetError, match=f"forgotten meanwhile.*{key}"):
        export(store, generation, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "export.json").exists()


def test_a_damaged_shard_stops_the_export(data: Published, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(data.store.root, copy)
    shard = next(copy.glob("masks/*/data/000001.*.tar"))
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(bytes(content))
    from maskmill.storage.dataset.generations import latest
    from maskmill.storage.stores.open import open_store

    store = open_store(copy)
    generation = latest(store)
    assert generation is not None
    with pytest.raises(DamagedObject, match="000001"):
        export(store, generation, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "export.json").exists()
    assert not list((tmp_path / "out").glob("*.tar"))


@pytest.mark.parametrize("wrong", [{"max_images": 0}, {"format": "voc"}, {"images": False}])
def test_wrong_wishes_are_refused(data: Published, tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|use one of sa1b, coco|always hold"):
        export(data.store, data.generation, str(tmp_path / "out"), **wrong)
    assert not (tmp_path / "out").exists()
