"""Hostile bytes for everything that reads: tars, JSON records, run lengths, settings.

    python -m benchmarks.fuzz --count 100000            all readers, the count shared out among them
    python -m benchmarks.fuzz --count 5000 --only tar --seed 7

Inputs are good ones, bent by hypothesis: bytes flipped, cut, doubled and spliced; JSON with values, fields
and types exchanged. Each must come to an end (`SECONDS_EACH` of CPU time), within a bound of memory
(`MEMORY_BYTES`), with a result or with one of the errors that the reader's docstring names. Anything else
stops the run with the input, made as small as hypothesis can.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import resource
import signal
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from maskmill.flows.config import ConfigError, load_config, to_toml
from maskmill.pipeline.annotation import AnnotatedImage, Annotation, from_sa1b, to_sa1b
from maskmill.pipeline.rle import Rle, area_px, box_xyxy, decode, from_run_lengths, run_lengths
from maskmill.storage.dataset.generations import generation_name, load_generation
from maskmill.storage.dataset.images import stored_image
from maskmill.storage.dataset.records import CommitRecord, Reject, parse_record, record_bytes
from maskmill.storage.errors import DamagedObject, StorageError
from maskmill.storage.plan.examine import caption_text
from maskmill.storage.plan.plan import PlanPart, load_plans, part_bytes, part_name
from maskmill.storage.plan.tables import PlanTable
from maskmill.storage.shards.shards import Sample, WrittenObject, read_shard
from maskmill.storage.shards.tar_format import end_marker, member_header, padding
from maskmill.storage.shards.tars import scan_tar
from maskmill.storage.stores.local import LocalStore
from maskmill.workers.run.recipe import recipe_names

SECONDS_EACH = 5.0
MEMORY_BYTES = 1 << 30  # beyond what importing and compiling takes
MAX_DECODED_PX = 1 << 20  # a mask may honestly be large: larger ones are only measured
DEEP = 3000  # brackets in brackets


@dataclass(frozen=True)
class Reader:
    """Something that reads what others wrote.

    Attributes:
        inputs: to read.
        read: reads one; returns or raises.
        errors: that it may raise.
    """

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], object]
    errors: tuple[type[BaseException], ...]


@dataclass
class Tally:
    """What came of one reader's inputs."""

    inputs: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)


class TooSlow(BaseException):
    """A reader did not come to an end."""


def main() -> None:
    """Fuzzes what was asked for and prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=sorted(READERS), default=None)
    asked = parser.parse_args()
    names = [asked.only] if asked.only else sorted(READERS)
    tallies = {name: fuzz(name, -(-asked.count // len(names)), asked.seed) for name in names}
    print(
        json.dumps(
            {
                "inputs": sum(tally.inputs for tally in tallies.values()),
                "refused": sum(tally.refused for tally in tallies.values()),
                "seed": asked.seed,
                "peak_megabytes": round(_peak_bytes() / 1e6, 1),
                "readers": {name: vars(tally) for name, tally in tallies.items()},
            },
            indent=1,
        )
    )


def fuzz(name: str, count: int, start: int = 0) -> Tally:
    """Feeds `count` inputs to a reader.

    Raises:
        BaseException: whatever the reader raised that it may not; TooSlow; MemoryError.
    """
    reader, tally = READERS[name], Tally()
    _warm(reader)
    with _bounded_memory():

        @seed(start)
        @settings(
            max_examples=count,
            deadline=None,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(reader.inputs)
        def feed(data: Any) -> None:
            tally.inputs += 1
            began = time.perf_counter()
            try:
                with _alarm(SECONDS_EACH):
                    reader.read(data)
            except reader.errors as exc:
                tally.refused += 1
                kind = type(exc).__name__
                tally.kinds[kind] = tally.kinds.get(kind, 0) + 1
            took = time.perf_counter() - began
            tally.slowest_s = round(max(tally.slowest_s, took), 4)

        began = time.perf_counter()
        feed()
        tally.seconds = round(time.perf_counter() - began, 2)
    return tally


def _warm(reader: Reader) -> None:
    """Imports and compiles before time and memory are bounded."""
    good: dict[Callable[[Any], object], Any] = {
        READERS["rle"].read: (3, 4, b"1234"),
        READERS["masks"].read: json.dumps(SA1B).encode(),
        READERS["captions"].read: json.dumps(CAPTIONS).encode(),
        READERS["labels"].read: json.dumps(LABELS).encode(),
    }
    if reader.read in good:
        reader.read(good[reader.read])


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Rings, and goes on ringing, after so much CPU time, or ten times that by the clock."""

    def ring(*_: object) -> None:
        raise TooSlow(f"not done after {seconds} s of CPU time, or {10 * seconds} s by the clock")

    timers = {signal.ITIMER_PROF: signal.SIGPROF, signal.ITIMER_REAL: signal.SIGALRM}
    before = {number: signal.signal(number, ring) for number in timers.values()}
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.5)
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds, 0.5)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """More than `MEMORY_BYTES` of new address space is a MemoryError."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# Bent inputs


@st.composite
def bent(draw: st.DrawFn, good: list[bytes]) -> bytes:
    """Good bytes with a few flips, cuts, insertions, doublings and splices."""
    data = bytearray(draw(st.sampled_from(good)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.integers(0, 5))
        if kind == 0 and data:
            data[at] ^= draw(st.integers(1, 255))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = draw(st.binary(max_size=40))
        elif kind == 3:
            end = at + draw(st.integers(0, 600))
            data[at:at] = data[at:end]
        elif kind == 4:
            del data[at : at + draw(st.integers(0, 600))]
        else:
            other = draw(st.sampled_from(good))
            data[at:] = other[draw(st.integers(0, max(0, len(other) - 1))) :]
    return bytes(data)


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e308, float("inf"), float("nan"), "", "\ud800"])
    | st.floats()
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def bent_json(draw: st.DrawFn, good: list[Any]) -> bytes:
    """Good JSON with fields dropped, added and exchanged; now and then bent as bytes or nested deep."""
    value = json.loads(json.dumps(draw(st.sampled_from(good))))
    for _ in range(draw(st.integers(0, 3))):
        value = _bend(draw, value)
    form = draw(st.integers(0, 40))
    if form == 0:
        return b"[" * DEEP + b"]" * DEEP
    if form == 1:
        return b'{"image":' * DEEP
    text = json.dumps(value).encode()
    return draw(bent([text])) if form < 8 else text


def _bend(draw: st.DrawFn, value: Any) -> Any:
    """One change somewhere inside."""
    if isinstance(value, dict) and value and draw(st.integers(0, 5)):
        name = draw(st.sampled_from(sorted(value)))
        action = draw(st.integers(0, 6))
        if action == 0:
            return {key: inner for key, inner in value.items() if key != name}
        if action == 1:
            return {**value, draw(st.text(max_size=8)): draw(JSON_VALUES)}
        return {**value, name: _bend(draw, value[name])}
    if isinstance(value, list) and value and draw(st.integers(0, 5)):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _bend(draw, value[at]), *value[at + draw(st.integers(0, 1)) :]]
    return draw(JSON_VALUES)


# Good inputs


def _tar(members: dict[str, bytes]) -> bytes:
    body = b"".join(
        member_header(name, len(data)) + data + padding(len(data)) for name, data in members.items()
    )
    return body + end_marker(len(body))


def _link() -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for kind, name in ((tarfile.SYMTYPE, "l" * 120), (tarfile.DIRTYPE, "d"), (tarfile.FIFOTYPE, "f")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "x" * 130
            tar.addfile(info)
    return target.getvalue()


TARS = [
    _tar({"000000001.jpg": b"\xff\xd8" * 300, "000000001.json": b"{}", "000000002.jpg": b""}),
    _tar({"x" * 140 + ".jpg": b"long", "\u00e9.json": b"pax", "a.txt": b"words"}),
    _tar({}),
    _link(),
]

_OBJECT = WrittenObject("masks/0/data/000000.a.tar", 10_240, "0" * 64, 2)
RECORD = json.loads(
    record_bytes(
        CommitRecord(
            column="masks",
            fingerprint="0" * 16,
            shard=0,
            attempt="a" * 16,
            data=_OBJECT,
            index=_OBJECT,
            num_read=3,
            num_written=2,
            rejects=(Reject("000000003", "too_small", "8 x 8"),),
            inputs={"images": "0" * 64},
            models={"segmenter": "nano"},
            seconds_by_step={"model": 0.5},
            created_utc="2025-01-01T00:00:00+00:00",
        )
    )
)
PLAN = json.loads(
    part_bytes(
        PlanPart(
            number=1,
            inputs=("/photos",),
            limit=None,
            shard_size=4,
            first_shard=0,
            num_shards=2,
            first_image_id=1,
            num_images=7,
            rows=PlanTable(replace(_OBJECT, num_samples=7), "0" * 64),
            row_group_shards=(0,),
            rejects=None,
            rejects_by_reason={"duplicate": 1},
            resolved=("/photos/a.jpg",),
            resolved_by_reason={"missing": 1},
            tars=None,
            skipped_by_ending={".txt": 1},
            forgotten=("000000003",),
        )
    )
)
GENERATION = {
    "number": 1,
    "parent": None,
    "columns": {"images": "0" * 16, "masks": "1" * 16},
    "settings": {"masks": {"points_per_side": 32}},
    "models": {"segmenter": "nano"},
    "totals": {"masks": 8},
    "created_utc": "2025-01-01T00:00:00+00:00",
    "manifest": asdict(_OBJECT),
    "made_by": "generate",
    "format_version": 1,
}
IMAGE = {
    "image_id": 1,
    "source": "/a.jpg",
    "member": "",
    "offset": 0,
    "size_bytes": 9,
    "etag": "1",
    "sha256": "0" * 64,
    "caption": None,
    "width": 4,
    "height": 3,
    "converted": "",
    "reference": False,
}
_BOX = (0.0, 0.0, 3.0, 2.0)
_MASK = Annotation(
    segmentation=Rle(3, 4, b"1234"),
    bbox_xywh=_BOX,
    area_px=6,
    predicted_iou=0.9,
    stability_score=0.95,
    crop_box_xywh=_BOX,
    point_xy=((1.0, 1.0),),
    output_token=1,
    parent=None,
)
SA1B = to_sa1b(AnnotatedImage(4, 3, (_MASK, _MASK)), image_id=1, file_name="a.jpg")
_TEXT = {"text": "a cat", "score": 0.5, "origin": "beam"}
CAPTIONS = {
    "image": {"image_id": 1, "width": 4, "height": 3},
    "texts": [_TEXT],
    "dropped": [],
    "crops": [{"mask": 100_000, "box": [0.0, 0.0, 2.0, 2.0], "texts": [_TEXT], "dropped": []}],
}
LABELS = {
    "image": {"image_id": 1, "width": 4, "height": 3},
    "num_grid_masks": 1,
    "labels": [
        {
            "label": "cat",
            "phrase": "cat",
            "score": 0.5,
            "box": [0, 0, 2, 2],
            "link_iou": 0.9,
            "mask": 100_000,
        }
    ],
    "annotations": SA1B["annotations"],
    "num_queries": 1,
    "dropped": {"score": 1},
}
RECIPES = [to_toml(load_config(name)).encode() for name in recipe_names()]
SETS = st.text(max_size=30) | st.builds(
    lambda name, value: f"{name}={value}",
    st.sampled_from(["masks.points_per_side", "run.shard_size", "segmenter.weights", "x.y", "masks."]),
    st.text(max_size=12)
    | st.integers().map(str)
    | st.floats().map(str)
    | st.sampled_from(["[" * 999, "none"]),
)


# Readers


def _loads(data: bytes) -> Any:
    """What a reader of JSON is given: bytes that are no JSON are refused before it."""
    try:
        return json.loads(data)
    except RecursionError as exc:
        raise ValueError("nested too deep") from exc


def _decoded(image: AnnotatedImage) -> int:
    """Reads what is only read at first use, too."""
    return sum(area_px(annotation.segmentation) for annotation in image.annotations)


def _read_captions(data: bytes) -> object:
    from maskmill.pipeline.words.caption import captions_from_record  # imports torch

    return captions_from_record(_loads(data))


def _read_labels(data: bytes) -> object:
    from maskmill.pipeline.words.ground import labels_from_record  # imports torch

    return labels_from_record(_loads(data))


def _use_plan(store: LocalStore) -> Iterator[object]:
    plan = load_plans(store)
    yield plan.num_shards, plan.num_images, plan.rejects_by_reason, plan.forgotten
    yield plan.keys_of(0), plan.shard_of("000000001")


def _scan(data: bytes) -> int:
    return sum(1 for _ in scan_tar(io.BytesIO(data), len(data)))


def _read_shard(data: bytes) -> int:
    sha256 = hashlib.sha256(data).hexdigest()
    with tempfile.TemporaryDirectory(dir=_FAST) as folder:
        store = LocalStore(folder)
        Path(folder, "x.tar").write_bytes(data)
        return sum(1 for _ in read_shard(store, WrittenObject("x.tar", len(data), sha256, 2)))


def _with_object(name: str, data: bytes, read: Callable[[LocalStore], object]) -> object:
    with tempfile.TemporaryDirectory(dir=_FAST) as folder:
        path = Path(folder, name)
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return read(LocalStore(folder))


def _read_rle(mask: tuple[Any, Any, bytes]) -> object:
    rle = Rle.from_coco({"size": [mask[0], mask[1]], "counts": mask[2]})
    if rle.height * rle.width <= MAX_DECODED_PX:
        return decode(rle).sum()
    return len(run_lengths(rle)), area_px(rle), box_xyxy(rle)


def _read_config(asked: tuple[bytes, list[str]]) -> object:
    with tempfile.NamedTemporaryFile(dir=_FAST, suffix=".toml") as file:
        file.write(asked[0])
        file.flush()
        return to_toml(load_config(file=file.name, sets=asked[1]))


_FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None

_COUNTS = [from_run_lengths(3, 4, lengths).counts for lengths in ([2, 5, 5], [0, 12], [12], [1] * 12)]
RLE_INPUTS = st.one_of(
    st.tuples(st.just(3), st.just(4), st.sampled_from(_COUNTS) | bent(_COUNTS)),
    st.tuples(
        st.integers(-2, 40) | st.sampled_from([2**15, 2**31, 2**40, 0.5, "3", None]),
        st.integers(-2, 40) | st.sampled_from([2**15, 2**31, 1e300]),
        bent([*_COUNTS, b"XX\\k0", b"o" * 100]) | st.lists(st.integers(-5, 50) | st.just(2**62)),
    ),
)

READERS = {
    "tar": Reader(bent(TARS), _scan, ()),
    "shard": Reader(bent(TARS), _read_shard, (DamagedObject,)),
    "commit record": Reader(bent_json([RECORD]), parse_record, (DamagedObject,)),
    "plan": Reader(
        bent_json([PLAN]),
        lambda data: _with_object(part_name(1), data, lambda store: list(_use_plan(store))),
        (StorageError,),
    ),
    "generation": Reader(
        bent_json([GENERATION]),
        lambda data: _with_object(generation_name(1), data, lambda store: load_generation(store, 1)),
        (DamagedObject,),
    ),
    "image": Reader(
        bent_json([IMAGE]),
        lambda data: stored_image(Sample("000000001", {"json": data, "jpg": b""})),
        (DamagedObject,),
    ),
    "caption file": Reader(bent_json([{"caption": "a cat"}]), lambda data: caption_text(".json", data), ()),
    "masks": Reader(bent_json([SA1B]), lambda data: _decoded(from_sa1b(_loads(data))), (ValueError,)),
    "captions": Reader(bent_json([CAPTIONS]), _read_captions, (ValueError,)),
    "labels": Reader(bent_json([LABELS]), _read_labels, (ValueError,)),
    "rle": Reader(RLE_INPUTS, _read_rle, (ValueError,)),
    "config": Reader(
        st.tuples(bent(RECIPES) | st.binary(max_size=60), st.lists(SETS, max_size=2)),
        _read_config,
        (ConfigError,),
    ),
}
"""By name. Readers of JSON records inside tars get what `json` makes of the bytes."""


if __name__ == "__main__":
    main()
