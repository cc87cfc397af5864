"""Files that hold more or less than one picture: pages, missing ends, formats that are told apart."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.open import open_store
from maskmill.workers.foreign.images.codec import DecodeError, normalise
from maskmill.workers.jobs.ingest import ingest_spec, ingest_stages
from maskmill.workers.run.ingest_settings import INGEST_REVISION, IngestSettings
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.shard.turn import run_shard
from tests.fakes import jpeg_bytes

NEW_SUBFILE, SUBFILE = 254, 255


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def tiff(*pages: tuple[tuple[int, int], dict[int, int]]) -> bytes:
    """Pages of these sizes with these tags."""
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer, True) as writer:
        for size, tags in pages:
            held = TiffImagePlugin.ImageFileDirectory_v2()
            for number, value in tags.items():
                held[number] = value
            picture(*size).save(writer, "TIFF", tiffinfo=held)
            writer.newFrame()
    return buffer.getvalue()


BIG, SMALL, TINY = (256, 192), (128, 96), (64, 48)

ONE_PICTURE = {
    "an overview": tiff((BIG, {}), (SMALL, {NEW_SUBFILE: 1})),
    "a pyramid": tiff((BIG, {}), (SMALL, {NEW_SUBFILE: 1}), (TINY, {NEW_SUBFILE: 1})),
    "a thumbnail first": tiff((TINY, {NEW_SUBFILE: 1}), (BIG, {NEW_SUBFILE: 0})),
    "a mask": tiff((BIG, {}), (BIG, {NEW_SUBFILE: 4})),
    "a mask of the overview": tiff((BIG, {}), (SMALL, {NEW_SUBFILE: 1}), (SMALL, {NEW_SUBFILE: 5})),
    "the older tag": tiff((BIG, {SUBFILE: 1}), (SMALL, {SUBFILE: 2})),
}


@pytest.mark.parametrize("name", ONE_PICTURE)
def test_a_smaller_copy_is_no_second_picture(name: str) -> None:
    found = normalise(ONE_PICTURE[name], IngestSettings())
    assert (found.width, found.height) == BIG
    assert np.abs(found.pixels_HWC.astype(int) - np.asarray(picture(*BIG))).mean() < 3
    with pytest.raises(DecodeError, match="frames or pages"):
        normalise(ONE_PICTURE[name], IngestSettings(rules=1))


SEVERAL = {
    "pages of a document": tiff((BIG, {NEW_SUBFILE: 2}), (BIG, {NEW_SUBFILE: 2})),
    "pages that say nothing": tiff((BIG, {}), (SMALL, {})),
    "two pictures, one with a copy": tiff((BIG, {}), (SMALL, {NEW_SUBFILE: 1}), (BIG, {})),
}


@pytest.mark.parametrize("name", SEVERAL)
def test_several_pictures_are_several(name: str) -> None:
    with pytest.raises(DecodeError) as raised:
        normalise(SEVERAL[name], IngestSettings())
    assert raised.value.reason == "animated"


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1"])
def test_heic_is_told_apart(brand: bytes) -> None:
    data = b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1heic" + bytes(200)
    with pytest.raises(DecodeError, match="convert it") as raised:
        normalise(data, IngestSettings())
    assert raised.value.reason == "heic"


@pytest.mark.parametrize("size", [(64, 48), (67, 51), (300, 200)])
@pytest.mark.parametrize("subsampling", [0, 2])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_without_its_end_marker_is_whole(size: tuple[int, int], subsampling: int, mode: str) -> None:
    buffer = io.BytesIO()
    picture(*size).convert(mode).save(buffer, "JPEG", quality=90, subsampling=subsampling)
    data = buffer.getvalue()
    assert data.endswith(b"\xff\xd9")
    found = normalise(data[:-2], IngestSettings())
    assert found.jpeg == data and found.converted == "end_added"
    assert np.array_equal(found.pixels_HWC, normalise(data, IngestSettings()).pixels_HWC)
    with pytest.raises(DecodeError, match="truncated"):
        normalise(data[:-2], IngestSettings(rules=1))


@pytest.mark.parametrize("missing", [3, 4, 6, 10, 40, 400])
def test_a_jpeg_that_was_cut_is_not(missing: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 128, 3), np.uint8)
    with pytest.raises(DecodeError) as raised:
        normalise(jpeg_bytes(noise)[:-missing], IngestSettings())
    assert raised.value.reason == "truncated"


def test_a_progressive_jpeg_without_its_end_counts_as_cut() -> None:
    buffer = io.BytesIO()
    picture(64, 48).save(buffer, "JPEG", progressive=True)
    with pytest.raises(DecodeError) as raised:
        normalise(buffer.getvalue()[:-2], IngestSettings())
    assert raised.value.reason == "truncated"


def take_in(root: Path, inputs: Path, ingest: IngestSettings) -> tuple[int | None, str, dict[str, int]]:
    """Rules in force, the images' fingerprint and the rejects of an ingest."""
    make_plan(open_store(root), [str(inputs)], shard_size=2)
    spec = ingest_spec(str(root), ingest)
    stages = ingest_stages(spec)
    rejects: dict[str, int] = {}
    for shard in range(stages.plan.num_shards):
        rejects |= run_shard(stages, ShardTask(shard=shard, attempt="a" * 16)).rejects
    return spec.ingest.rules, spec.fingerprints["images"], rejects


def test_a_dataset_goes_on_by_the_rules_it_was_begun_with(tmp_path: Path) -> None:
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    picture(64, 48).save(inputs / "a.png")
    (inputs / "b.tif").write_bytes(ONE_PICTURE["an overview"])

    old = take_in(tmp_path / "old", inputs, IngestSettings(rules=1))
    assert old[0] == 1 and old[2] == {"animated": 1}
    (inputs / "c.tif").write_bytes(ONE_PICTURE["a pyramid"])
    (inputs / "d.tif").write_bytes(ONE_PICTURE["a mask"])
    assert take_in(tmp_path / "old", inputs, IngestSettings())[:2] == old[:2]

    new = take_in(tmp_path / "new", inputs, IngestSettings())
    assert new[0] == INGEST_REVISION and new[1] != old[1] and new[2] == {}
    asked = take_in(tmp_path / "old", inputs, IngestSettings(rules=INGEST_REVISION))
    assert asked[1] == new[1] and asked[2] == {}


def test_fingerprints_of_the_first_rules_are_those_of_before() -> None:
    from maskmill.workers.run.columns import fingerprints
    from maskmill.workers.stages.images import image_facts

    digits = fingerprints({"images": image_facts(IngestSettings(rules=1))})
    assert digits == {"images": BEFORE}
    ranged = fingerprints({"images": image_facts(IngestSettings(rules=1, range="min-max"))})
    assert ranged != digits


BEFORE = "6cb8cbebc66de054"
"""Of the default settings, by the version that had no `rules` and no `range`."""
