"""Do perceptual hashes find copies, and only copies? And how long do a million take?

    python -m benchmarks.near_duplicates FOLDER... [--scenes 100] [--hashes 1000000]

Each picture of the folders, and generated scenes, is hashed again recompressed, resized, brightened and
cropped; a copy is found where at most MAX_DISTANCE bits differ. A false partner is another picture as near.
Prints a Markdown table; the CPU's seconds, since machines are shared.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from maskmill.pipeline.evaluate.points import held_back_scenes
from maskmill.pipeline.phash import BITS, MAX_DISTANCE, distances, groups, near_pairs, picture_hash, to_words

Change = Callable[[Image.Image], Image.Image]
ENDINGS = {".jpg", ".jpeg", ".png", ".tif", ".webp"}


def recompressed(quality: int) -> Change:
    def change(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    return change


def resized(factor: float) -> Change:
    return lambda one: one.resize((max(1, round(one.width * factor)), max(1, round(one.height * factor))))


def brightened(factor: float) -> Change:
    return lambda one: ImageEnhance.Brightness(one).enhance(factor)


def cropped(share: float) -> Change:
    """Without so much of each side."""
    return lambda one: one.crop(
        (
            round(one.width * share),
            round(one.height * share),
            round(one.width * (1 - share)),
            round(one.height * (1 - share)),
        )
    )


CHANGES: dict[str, Change] = {
    "JPEG quality 70": recompressed(70),
    "JPEG quality 30": recompressed(30),
    "half size": resized(0.5),
    "0.73 of the size": resized(0.73),
    "double size": resized(2.0),
    "brightness 0.7": brightened(0.7),
    "brightness 1.3": brightened(1.3),
    "half size, brightness 1.2, quality 60": lambda one: recompressed(60)(brightened(1.2)(resized(0.5)(one))),
    "cropped by 2 % a side": cropped(0.02),
    "cropped by 5 % a side": cropped(0.05),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--hashes", type=int, default=1_000_000)
    given = parser.parse_args()

    pictures = [
        Image.open(path).convert("RGB")
        for folder in given.folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in ENDINGS
    ]
    pictures += [Image.fromarray(scene.image) for scene in held_back_scenes(given.scenes)]
    hashes = [picture_hash(np.asarray(picture)) for picture in pictures]
    known = [
        (picture, to_words([found])[0]) for picture, found in zip(pictures, hashes, strict=True) if found
    ]

    print(f"{len(pictures)} pictures, {len(pictures) - len(known)} too flat to be hashed\n")
    print(f"| change | found, of {len(known)} | bits that differ: median | most |\n|---|---|---|---|")
    for name, change in CHANGES.items():
        apart = [_bits_changed(picture, words, change) for picture, words in known]
        found = np.mean([bits <= MAX_DISTANCE for bits in apart])
        print(f"| {name} | {100 * found:.1f} % | {np.median(apart):.0f} | {max(apart)} |")

    words = np.stack([one for _, one in known])
    between = distances(words[:, None], words[None])
    nearest = between[~np.eye(len(words), dtype=bool)].reshape(len(words), -1).min(axis=1)
    false = int((nearest <= MAX_DISTANCE).sum())
    print(f"\nfalse partners: {false}; the nearest two differ in {nearest.min()} bits")
    _million(given.hashes)


def _bits_changed(picture: Image.Image, words: np.ndarray, change: Change) -> int:
    found = picture_hash(np.asarray(change(picture)))
    return BITS if found is None else int(distances(words, to_words([found])[0]))


def _million(num_hashes: int) -> None:
    """Random hashes, a hundredth of them copies of others but for twelve bits."""
    rng = np.random.default_rng(0)
    words = rng.integers(0, 1 << 64, (num_hashes, 4), dtype=np.uint64)
    copies = num_hashes // 100
    words[-copies:] = words[:copies]
    for bit in rng.integers(0, BITS, (12, copies)):
        words[np.arange(-copies, 0), bit // 64] ^= np.uint64(1) << (bit % 64).astype(np.uint64)

    begun = time.process_time()
    found = groups(num_hashes, near_pairs(words))
    seconds = time.process_time() - begun
    print(
        f"\n{num_hashes:,} hashes grouped in {seconds:.1f} s of a core: {len(found):,} of {copies:,} groups"
    )


if __name__ == "__main__":
    main()
