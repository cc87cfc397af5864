"""BSDS500's pictures and the edges that people drew in them: MATLAB's files beside JPEGs.

    images/100075.jpg     the picture (or .png)
    truth/100075.mat      groundTruth{k}.Boundaries: each annotator's edge map

Pairs are found before anything is measured; each is read when its turn comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskmill.storage.errors import InputError
from maskmill.workers.foreign.images.codec import DecodeError, decode_image

ENDINGS = (".jpg", ".png")


@dataclass(frozen=True)
class EdgePair:
    """A picture and its annotators' file."""

    picture: Path
    truth: Path


def edge_pairs(images: Path, truth: Path) -> list[EdgePair]:
    """Pictures of BSDS500 with the files of their edges, by name; the first file is read to see that it fits.

    Args:
        images: folder of <name>.jpg.
        truth: folder of <name>.mat, MATLAB's files with `groundTruth{k}.Boundaries`.

    Raises:
        InputError: no .mat there, one without boundaries, or one whose picture is missing.
    """
    files = sorted(truth.glob("*.mat"))
    if not files:
        raise InputError(f"{truth}: holds no .mat file; give BSDS500's groundTruth folder of one split")
    pairs = [EdgePair(_picture(images, path), path) for path in files]
    _maps(files[0])
    return pairs


def read_edges(pair: EdgePair) -> tuple[NDArray[np.uint8], list[NDArray[np.bool_]]]:
    """A picture, uint8[H, W, 3], and each annotator's edge map, bool[H, W].

    Raises:
        InputError: one of the two cannot be read.
    """
    try:
        image = decode_image(pair.picture.read_bytes())
    except (DecodeError, OSError) as exc:
        raise InputError(f"{pair.picture}: cannot be read ({exc}); take its edges out of the folder") from exc
    maps = _maps(pair.truth)
    if not maps or any(one.shape != image.shape[:2] for one in maps):
        raise InputError(
            f"{pair.truth}: its edges are {[one.shape for one in maps]}, the picture {image.shape[:2]}; "
            "give each picture its own"
        )
    return image, maps


def _picture(images: Path, truth: Path) -> Path:
    for ending in ENDINGS:
        if (path := images / f"{truth.stem}{ending}").is_file():
            return path
    raise InputError(f"{images}: holds no {truth.stem}{ENDINGS[0]} for {truth.name}")


def _maps(path: Path) -> list[NDArray[np.bool_]]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        cells = loadmat(path)["groundTruth"].ravel()
        return [np.asarray(cell["Boundaries"][0, 0]) > 0 for cell in cells]
    except (KeyError, ValueError, IndexError, OSError, NotImplementedError, MatReadError) as exc:
        raise InputError(f"{path}: has no groundTruth with Boundaries ({exc})") from exc
