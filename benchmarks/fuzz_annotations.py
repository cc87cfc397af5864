"""Mutated COCO, LVIS and SA-1B files for the reader of other people's annotations.

    python -m benchmarks.fuzz_annotations --count 50000          a process a batch of 500
    python -m benchmarks.fuzz_annotations --count 500 --seed 7

Files are bent by what they say, so that most get past JSON: values exchanged for hostile ones, fields and
items taken out, doubled and moved, polygons and run lengths damaged. A few are bent as bytes. Every file must
end in a refusal of ours (InputError) or in an account that adds up: annotations read = taken + left out.
A batch whose process dies (a signal, a traceback, out of time or memory) is halved until one input is left.

Prints JSON: how many got past JSON, what was refused, taken, and left out by reason; exits with 1 where an
input did what none may. `--show N` prints the input number N, to keep it as a test.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from maskmill.pipeline.rle import encode_mask
from maskmill.storage.errors import InputError
from maskmill.workers.foreign.annotations import ForeignImage
from maskmill.workers.foreign.given import read_given
from maskmill.workers.foreign.images.codec import DecodeError
from maskmill.workers.stages.base import Picture
from maskmill.workers.stages.masks.given import left_out_of, to_record

BATCH = 500
SECONDS_EACH = 1
START_SECONDS = 20
"""Of CPU time, for each input and for compiling what measures masks."""

MEMORY_BYTES = 6 << 30
AS_BYTES = 0.15  # share of inputs that are bent as bytes
LARGEST_SIDE = 4096  # of a picture that an entry is fitted to

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, "", " ", "0", "nan", "1e400", "\ud800", "a\0b", "../../x.jpg", "x" * 5000),
    *(0, -1, 1, 2**31, 2**63, -(2**64), 10**400, 0.5, -0.0, 1e308, -1e308, 1e-320),
    *(float("nan"), float("inf"), float("-inf"), [], {}, [[]], [None], {"id": 1}, [1e9] * 8, [0.0] * 7),
)


def main() -> None:
    """Runs what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=None)
    asked = parser.parse_args()
    if asked.show is not None:
        sys.stdout.buffer.write(made(asked.show)[1])
        return
    began, total, bad = time.monotonic(), Counter[str](), []
    for start in range(asked.seed, asked.seed + asked.count, BATCH):
        outcome, dead = run_batch(start, min(start + BATCH, asked.seed + asked.count))
        total.update(outcome)
        bad += dead
        print(f"{start + BATCH} inputs, {len(bad)} bad: {json.dumps(shares(total))}", file=sys.stderr)
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"inputs": asked.count, "seconds": seconds, **shares(total), "bad": bad}, indent=1))
    sys.exit(1 if bad else 0)


def run_batch(start: int, end: int) -> tuple[Counter[str], list[dict[str, Any]]]:
    """Inputs in a process of their own; one that dies is halved, down to the inputs that kill it."""
    with tempfile.TemporaryFile() as told:
        if not (child := os.fork()):
            _in_child(range(start, end), told)
        _, status = os.waitpid(child, 0)
        told.seek(0)
        said = told.read().decode()
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return Counter(json.loads(said)), []
    if end - start == 1:
        return Counter(), [{"input": start, "code": code, "told": said}]
    middle = (start + end) // 2
    (first, some), (second, others) = run_batch(start, middle), run_batch(middle, end)
    return first + second, some + others


def _in_child(numbers: range, told: IO[bytes]) -> NoReturn:
    """Feeds and ends this process: with the counts, or with the error that came out."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])  # what it was forked with
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    seconds = START_SECONDS + SECONDS_EACH * len(numbers)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    try:
        told.write(json.dumps(feed(numbers)).encode())
        told.flush()
        os._exit(0)
    except BaseException as exc:  # noqa: BLE001 - whatever comes out is what is looked for
        told.write(f"{type(exc).__name__}: {exc}".encode(errors="replace"))
        told.flush()
        os._exit(1)


def feed(numbers: range) -> Counter[str]:
    """Reads inputs; what came of them, counted.

    Raises:
        AssertionError: an account doesn't add up; names the input.
    """
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in numbers:
            format, data = made(number)
            path = Path(folder, "given.json")
            path.write_bytes(data)
            counts[format] += 1
            counts["past_json"] += is_json(data)
            counts.update(came_of(number, path, format))
    return counts


def came_of(number: int, path: Path, format: str) -> Counter[str]:
    """What came of one file, its account checked."""
    try:
        given = read_given([path], "sa1b" if format == "sa1b" else "coco")
    except InputError as exc:
        assert str(exc) and "\n" not in str(exc)[:-1], f"input {number}: {exc!r}"
        return Counter({"refused": 1})
    counts, taken = Counter({"read": 1}), 0
    left_out = Counter(given.left_out.counts)
    for place, image in enumerate(given.images):
        try:
            record = to_record(image, picture_of(image, place))
        except DecodeError as exc:
            counts[f"image: {exc.reason}"] += 1
            left_out[exc.reason] += len(image.annotations)
            continue
        json.dumps(record, allow_nan=True)
        taken += len(record["annotations"])
        left_out.update(left_out_of(record).counts)
    accounted = taken + left_out.total()
    assert accounted == given.num_annotations, f"input {number}: {given.num_annotations} read, {accounted}"
    counts["annotations"] += given.num_annotations
    counts["taken"] += taken
    counts.update({f"left out: {reason}": count for reason, count in left_out.items()})
    return counts


def picture_of(image: ForeignImage, place: int) -> Picture:
    """A stored picture of the size that an entry names, as far as such pictures are."""
    width, height = (min(side or 64, LARGEST_SIDE) for side in (image.width, image.height))
    pixels = np.broadcast_to(np.uint8(0), (height, width, 3))
    return Picture(
        key=f"{place + 1:09d}", image_id=place + 1, pixels_HWC=pixels, caption=None, source="x.jpg"
    )


def shares(total: Counter[str]) -> dict[str, Any]:
    """The counts, with each share that is asked for."""
    inputs = sum(total[format] for format in BASES) or 1
    counts = dict(sorted(total.items()))
    return {"share_past_json": round(total["past_json"] / inputs, 3), "counts": counts}


def is_json(data: bytes) -> bool:
    """Whether Python's JSON takes it."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return False
    return True


# Inputs


def made(number: int) -> tuple[str, bytes]:
    """An input by its number: the format and the bytes."""
    draw = random.Random(number)
    format = draw.choice(sorted(BASES))
    document = copy.deepcopy(BASES[format])
    for _ in range(draw.randint(1, 5)):
        bend(document, draw)
    data = json.dumps(document, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
    if draw.random() < AS_BYTES and data:
        place = draw.randrange(len(data))
        cut = draw.choice((b"", b"\0", b"\xff\xfe", data[:place][-20:], b"[" * 3000, b"1" * 6000))
        data = data[:place] + cut + data[place + draw.randint(0, 30) :]
    return format, data


def bend(document: Any, draw: random.Random) -> None:
    """One change somewhere in a document, in place."""
    holders = list(holders_of(document))
    if not holders:
        return
    holder, key = draw.choice(holders)
    draw.choice(BENDS)(holder, key, draw)


def holders_of(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a document, as what holds it and where."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in list(pairs):
        yield value, key
        if isinstance(inner, dict | list):
            yield from holders_of(inner)


def _hostile(holder: Any, key: Any, draw: random.Random) -> None:
    holder[key] = copy.deepcopy(draw.choice(HOSTILE))


def _scaled(holder: Any, key: Any, draw: random.Random) -> None:
    if isinstance(holder[key], int | float):
        holder[key] = holder[key] * draw.choice((-1, 0.1, 3, 1000, 1e12))


def _gone(holder: Any, key: Any, draw: random.Random) -> None:
    del holder[key]


def _doubled(holder: Any, key: Any, draw: random.Random) -> None:
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[f"{key}_"] = holder[key]


def _nested(holder: Any, key: Any, draw: random.Random) -> None:
    inner = holder[key]
    for _ in range(draw.choice((1, 2, 40))):
        inner = [inner] if draw.random() < 0.7 else {"size": inner}
    holder[key] = inner


def _as_word(holder: Any, key: Any, draw: random.Random) -> None:
    holder[key] = str(holder[key])


def _long(holder: Any, key: Any, draw: random.Random) -> None:
    if isinstance(holder[key], list) and len(holder[key]) < 100:
        holder[key] = holder[key] * draw.choice((2, 50))
    elif isinstance(holder[key], str):
        holder[key] = holder[key] * draw.choice((2, 300))


def _letters(holder: Any, key: Any, draw: random.Random) -> None:
    if isinstance(holder[key], str) and holder[key]:
        place = draw.randrange(len(holder[key]))
        holder[key] = holder[key][:place] + chr(draw.randrange(33, 400)) + holder[key][place + 1 :]


BENDS: tuple[Callable[[Any, Any, random.Random], None], ...] = (
    *(_hostile, _hostile, _hostile, _scaled, _scaled, _gone, _doubled, _nested, _as_word, _long, _letters),
)


def _masks() -> list[dict[str, Any]]:
    """Segmentations of each form."""
    mask_HW = np.zeros((48, 64), bool)
    mask_HW[8:30, 10:40] = True
    mask_HW[12:15, 20:25] = False
    packed = encode_mask(mask_HW).to_coco()
    runs = [8 + 48 * 10, *([22, 26] * 29), 22, 48 * 64 - 48 * 40 + 18]
    return [
        {"segmentation": [[4.5, 4.0, 40.0, 4.0, 40.0, 30.0, 4.0, 30.0], [50, 40, 60, 40, 55, 46]]},
        {"segmentation": packed},
        {"segmentation": {"size": [48, 64], "counts": runs}, "iscrowd": 1},
        {"segmentation": [], "keypoints": [1, 2, 2], "num_keypoints": 1},
        {},
    ]


def _coco(*, lvis: bool) -> dict[str, Any]:
    images: list[dict[str, Any]] = [
        {"id": number, "file_name": f"a/{number}.jpg", "width": 64, "height": 48} for number in (1, 2, 3)
    ]
    rows = [
        {
            "id": number,
            "image_id": 1 + number % 3,
            "category_id": 1,
            "bbox": [4, 4, 36, 26],
            "area": 900,
            **one,
        }
        for number, one in enumerate(_masks() * 2, start=1)
    ]
    kinds: list[dict[str, Any]] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    found = {"info": {"year": 2017}, "images": images, "annotations": rows, "categories": kinds}
    if lvis:
        for image in images:
            image |= {"coco_url": f"http://images/train2017/{image['id']:012d}.jpg"}
            image |= {"neg_category_ids": [2], "not_exhaustive_category_ids": []}
            del image["file_name"]
        kinds[0] |= {"frequency": "f", "synset": "dog.n.01", "synonyms": ["dog"], "image_count": 3}
    return found


def _sa1b() -> dict[str, Any]:
    rows = [
        {
            "id": number,
            "bbox": [4, 4, 36, 26],
            "area": 900,
            "predicted_iou": 0.9,
            "stability_score": 0.95,
            "crop_box": [0, 0, 64, 48],
            "point_coords": [[10.0, 12.0]],
            **one,
        }
        for number, one in enumerate(_masks()[1:3] * 3, start=1)
    ]
    image = {"image_id": 7, "width": 64, "height": 48, "file_name": "sa_7.jpg"}
    return {"image": image, "annotations": rows}


BASES: dict[str, Any] = {"coco": _coco(lvis=False), "lvis": _coco(lvis=True), "sa1b": _sa1b()}
"""Good files, by format: what is bent."""

if __name__ == "__main__":
    main()
