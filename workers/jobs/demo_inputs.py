"""Pictures to try maskmill on without any download: generated scenes, and photographs that scikit-image
ships.

The photographs are those of scikit-image's wheel whose own documentation (`skimage.data`) states that they
are in the public domain, under CC0, or without known copyright restrictions; they are copied as they lie in
the package. Scenes come from pipeline/scenes with seeds that no shipped model was trained on.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCENE_QUALITY = 92


@dataclass(frozen=True)
class Photograph:
    """A photograph in scikit-image's wheel.

    Attributes:
        file_name: its name in skimage/data.
        title: what it shows.
        terms: whose it is and under which terms, by skimage.data's documentation.
    """

    file_name: str
    title: str
    terms: str


PHOTOGRAPHS = (
    Photograph("astronaut.png", "astronaut Eileen Collins", "NASA, public domain"),
    Photograph("brick.png", "a brick wall", "CC0Textures, CC0"),
    Photograph("camera.png", "a man behind a camera", "Lav Varshney, CC0"),
    Photograph("chelsea.png", "Chelsea the cat", "Stefan van der Walt, CC0"),
    Photograph("clock_motion.png", "a wall clock, the camera moving", "Stefan van der Walt, public domain"),
    Photograph("coffee.png", "a cup of coffee", "Rachel Michetti, CC0"),
    Photograph("coins.png", "Greek coins from Pompeii", "Brooklyn Museum, no known copyright restrictions"),
    Photograph("gravel.png", "gravel", "CC0Textures, CC0"),
    Photograph("hubble_deep_field.jpg", "the Hubble eXtreme Deep Field", "NASA, public domain"),
    Photograph(
        "ihc.png", "stained glands of a colon under the microscope", "CMMI, no known copyright restrictions"
    ),
    Photograph("retina.jpg", "a human retina", "Mikael Häggström, CC0"),
    Photograph("rocket.jpg", "the launch of a Falcon 9", "SpaceX, public domain"),
)


def write_photographs(folder: str | Path) -> list[Photograph]:
    """Copies the photographs into `folder`, made if need be; a file that is there already is written again.

    Returns:
        What was written, in order.

    Raises:
        FileNotFoundError: scikit-image or one of its photographs is not installed.
        OSError: the folder cannot be written.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the photographs come with scikit-image, which is not installed: pip install scikit-image"
        )
    data = Path(spec.origin).parent / "data"
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    for photograph in PHOTOGRAPHS:
        (target / photograph.file_name).write_bytes((data / photograph.file_name).read_bytes())
    return list(PHOTOGRAPHS)


def write_scenes(
    folder: str | Path,
    *,
    count: int,
    seed: int = 0,
    size_px: int = 512,
    progress: Callable[[int], None] | None = None,
) -> list[Path]:
    """Writes `count` generated scenes as JPEGs named by their seed; equal arguments give equal pictures.

    Args:
        folder: made if need be; a file that is there already is written again.
        count: scenes, at least 1.
        seed: the first scene's; the next has seed + 1. Counted from where the models' training never went.
        size_px: width and height, 32 to 4096.
        progress: called with the number written so far.

    Returns:
        The files, in order.

    Raises:
        ValueError: a number out of its range.
        OSError: the folder cannot be written.
    """
    if count < 1 or seed < 0 or not 32 <= size_px <= 4096:
        raise ValueError(
            f"count={count}, seed={seed}, size_px={size_px}: use count >= 1, seed >= 0, size_px 32 to 4096"
        )
    from PIL import Image

    from maskmill.pipeline.scenes.scenes import HELD_BACK_SEED, generate_scene

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    files = []
    for number in range(seed, seed + count):
        scene = generate_scene(HELD_BACK_SEED + number, size_px)
        path = target / f"scene-{number:06d}.jpg"
        Image.fromarray(scene.image).save(path, quality=SCENE_QUALITY)
        files.append(path)
        if progress is not None:
            progress(len(files))
    return files
