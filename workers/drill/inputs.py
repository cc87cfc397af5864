"""The drill's pictures: tiny JPEGs and tars of them, poison and damaged ones among them.

A part is a folder of its own; equal arguments write equal bytes.
"""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from maskmill.workers.drill.stages import POISON

HEIGHT, WIDTH, BLOCK = 48, 64, 16
IMAGES_PER_TAR = 40
TAR_SHARE = 0.5


def write_part(folder: Path, *, seed: int, num_images: int, num_poison: int, num_damaged: int) -> None:
    """Writes a part: half of the pictures as files, half in tars.

    Args:
        folder: to be made.
        seed: of the pictures and of the places of special ones.
        num_images: whole and harmless ones.
        num_poison: that kill whoever annotates them.
        num_damaged: that are cut off, no image, empty, the same again, or in a tar that is cut off.
    """
    rng = random.Random(seed)
    pictures = [_jpeg(_blocks(rng)) for _ in range(num_images)]
    for _ in range(num_poison):
        noise = np.array([rng.randrange(8) for _ in range(3)], np.uint8)  # else they were duplicates
        pixels = np.full((HEIGHT, WIDTH, 3), POISON, np.uint8)
        pixels[:BLOCK, :BLOCK] = np.array(POISON, np.uint8) - noise * np.array([1, 0, 1], np.uint8)
        pixels[:, :BLOCK] += np.array([0, rng.randrange(16), 0], np.uint8)
        pictures.insert(rng.randrange(len(pictures)), _jpeg(pixels))
    for i in range(num_damaged):
        pictures.insert(rng.randrange(len(pictures)), _damaged(i, pictures, rng))
    in_tars = int(len(pictures) * TAR_SHARE)
    (folder / "files").mkdir(parents=True)
    for i, data in enumerate(pictures[in_tars:]):
        (folder / "files" / f"{i:05d}.jpg").write_bytes(data)
    for start in range(0, in_tars, IMAGES_PER_TAR):
        _write_tar(
            folder / f"{start:05d}.tar",
            pictures[start : min(start + IMAGES_PER_TAR, in_tars)],
            cut=start == 0 and num_damaged > 0,
        )


def _damaged(i: int, pictures: list[bytes], rng: random.Random) -> bytes:
    whole = _jpeg(_blocks(rng))
    return (
        whole[: len(whole) // 2],
        b"no image at all " + bytes([i % 251]),
        b"",
        rng.choice(pictures),
        whole[:2] + bytes(len(whole) - 2),
    )[i % 5]


def _write_tar(path: Path, pictures: list[bytes], *, cut: bool) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for i, data in enumerate(pictures):
            member = tarfile.TarInfo(f"{path.stem}_{i:03d}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        end = tar.offset
    whole = buffer.getvalue()
    path.write_bytes(whole[: end - 700] if cut else whole)


def _blocks(rng: random.Random) -> npt.NDArray[np.uint8]:
    levels = [rng.randrange(256) for _ in range(HEIGHT // BLOCK * (WIDTH // BLOCK))]
    small = np.array(levels, np.uint8).reshape(HEIGHT // BLOCK, WIDTH // BLOCK)
    return np.repeat(np.kron(small, np.ones((BLOCK, BLOCK), np.uint8))[:, :, None], 3, axis=2)


def _jpeg(pixels_HWC: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
