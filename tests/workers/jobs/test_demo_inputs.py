"""The demo's pictures: real photographs as shipped, scenes equal for equal seeds."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from maskmill.workers.jobs.demo_inputs import PHOTOGRAPHS, write_photographs, write_scenes


def test_photographs_are_the_shipped_files_and_decode(tmp_path: Path) -> None:
    written = write_photographs(tmp_path / "photos")
    assert len(written) == len(PHOTOGRAPHS) >= 8
    for photograph in written:
        with Image.open(tmp_path / "photos" / photograph.file_name) as image:
            image.load()
            assert min(image.size) >= 300
        assert photograph.terms


def test_scenes_are_named_by_seed_and_equal_for_equal_seeds(tmp_path: Path) -> None:
    seen: list[int] = []
    first = write_scenes(tmp_path / "a", count=3, seed=5, size_px=64, progress=seen.append)
    second = write_scenes(tmp_path / "b", count=2, seed=6, size_px=64)
    assert [path.name for path in first] == ["scene-000005.jpg", "scene-000006.jpg", "scene-000007.jpg"]
    assert seen == [1, 2, 3]
    assert [path.read_bytes() for path in first[1:]] == [path.read_bytes() for path in second]
    assert first[0].read_bytes() != first[1].read_bytes()


@pytest.mark.parametrize("bad", [{"count": 0}, {"count": 1, "seed": -1}, {"count": 1, "size_px": 8}])
def test_scenes_refuse_numbers_out_of_range(tmp_path: Path, bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="use count >= 1"):
        write_scenes(tmp_path, **bad)
