"""A few hostile inputs for each reader; `make fuzz` gives them a hundred thousand."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import fuzz
from benchmarks.fuzz import READERS, Reader, TooSlow, st
from maskmill.flows.config import ConfigError, load_config
from maskmill.pipeline.annotation import from_sa1b
from maskmill.pipeline.rle import Rle
from maskmill.storage.dataset.records import parse_record
from maskmill.storage.errors import DamagedObject
from maskmill.storage.json_text import from_json, load_json

LIGHT = sorted(READERS.keys() - {"captions", "labels"})  # these import torch


@pytest.mark.parametrize("name", LIGHT)
def test_readers_end_with_a_result_or_an_error_of_ours(name: str) -> None:
    tally = fuzz.fuzz(name, 25)
    assert tally.inputs >= 25


def test_what_a_reader_may_not_do_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(data: bytes) -> None:
        while True:
            pass

    def swell(data: bytes) -> None:
        bytearray(8 << 30)

    def slip(data: bytes) -> None:
        raise IndexError

    monkeypatch.setattr(fuzz, "SECONDS_EACH", 0.05)
    readers: list[tuple[Callable[[bytes], None], type[BaseException]]] = [
        (hang, TooSlow),
        (swell, MemoryError),
        (slip, IndexError),
    ]
    for read, expected in readers:
        monkeypatch.setitem(READERS, "bad", Reader(st.just(b""), read, (ValueError,)))
        with pytest.raises(expected):
            fuzz.fuzz("bad", 1)


# What fuzzing found


@pytest.mark.parametrize("data", [b"[" * 5000, b"null", b'{"format_version": 1, "rejects": 7}', b"{NaN"])
def test_odd_json_is_a_damaged_record(data: bytes) -> None:
    with pytest.raises(DamagedObject):
        parse_record(data)


def test_json_has_no_infinity() -> None:
    with pytest.raises(ValueError, match="Infinity"):
        load_json(b"[Infinity]")


def test_a_field_of_another_type_is_named() -> None:
    from maskmill.storage.shards.shards import WrittenObject

    good = {"name": "a", "size_bytes": 1, "sha256": "0", "num_samples": 2}
    assert from_json(WrittenObject, good) == WrittenObject("a", 1, "0", 2)
    for bad in ({"size_bytes": "1"}, {"size_bytes": True}, {"name": None}, {"more": 1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            from_json(WrittenObject, {**good, **bad})


def test_deep_toml_is_no_recursion_error(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 5000)
    with pytest.raises((RecursionError, tomllib.TOMLDecodeError)):
        tomllib.loads(path.read_text())
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(file=path)
    with pytest.raises(ConfigError):
        load_config(sets=["run.shard_size=" + "[" * 5000])


@pytest.mark.parametrize(
    "segmentation", [7, {"size": None, "counts": "1"}, {"size": [1e400, 2], "counts": "1"}, {"size": [3, 4]}]
)
def test_odd_masks_are_value_errors(segmentation: object) -> None:
    with pytest.raises(ValueError):
        Rle.from_coco(segmentation)  # type: ignore[arg-type]
    with pytest.raises(ValueError):
        from_sa1b({"image": {"width": 4, "height": 3}, "annotations": [segmentation, None]})


def test_run_lengths_that_wrap_around_are_refused() -> None:
    with pytest.raises(ValueError, match="add up"):
        Rle.from_coco({"size": [3, 4], "counts": [2**62] * 4 + [12]})


def test_the_report_is_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["fuzz", "--count", "3", "--only", "tar"])
    fuzz.main()
    assert json.loads(capsys.readouterr().out)["readers"]["tar"]["inputs"] >= 3
