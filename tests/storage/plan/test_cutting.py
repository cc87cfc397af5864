"""How many images go into a shard where nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.storage.plan import cutting
from maskmill.storage.plan.walk import InputFile


@pytest.mark.parametrize(
    ("images", "workers", "seconds", "size"),
    [
        (13, 2, None, 4),  # 4 shards for two workers, where one of 16 left a worker idle
        (13, 2, 300.0, 2),  # ten minutes' work
        (1, 8, None, 1),
        (0, 2, None, 1),
        (100_000, 4, None, cutting.MOST),
        (100_000, 4, 1.0, 600),
        (None, 4, 1.0, 600),
        (None, None, None, cutting.MOST),
        (50, None, None, cutting.MOST),
        (None, 4, 1e-9, 10 * cutting.MOST),
        (None, 4, 5000.0, 1),
    ],
)
def test_cut(images: int | None, workers: int | None, seconds: float | None, size: int) -> None:
    """Two shards a worker at least, ten minutes' work at most."""
    assert cutting.cut(images, workers, seconds) == size


def test_counts_images_as_far_as_asked() -> None:
    """A tar counts by its size, and nothing is walked beyond the number asked for."""
    files = [InputFile(f"{number}.jpg", "image", 1, "") for number in range(5)]
    assert cutting.count_up_to(files, 5) == 5
    assert cutting.count_up_to(iter(files), 4) is None
    tars = [InputFile("a.tar", "tar", 1, ""), InputFile("b.tar", "tar", 10 * cutting.TAR_BYTES_AN_IMAGE, "")]
    assert cutting.count_up_to([*files, *tars], 99) == 5 + 1 + 10

    def endless() -> object:
        while True:
            yield files[0]

    assert cutting.count_up_to(endless(), 100) is None  # type: ignore[arg-type]


def test_speed_of_a_dataset(tmp_path: Path) -> None:
    """None before anything is made."""
    from maskmill.storage.stores.open import open_store

    assert cutting.seconds_an_image(open_store(str(tmp_path)), "masks") is None
