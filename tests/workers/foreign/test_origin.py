"""Sources in exports say nothing of the machine, and still tell pictures apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.workers.foreign.matching import ForeignName, Picture, match
from maskmill.workers.foreign.origin import relative_to


@pytest.mark.parametrize(
    ("inputs", "source", "told"),
    [
        (["/home/eve/photos"], "/home/eve/photos/a/1.jpg", "photos/a/1.jpg"),
        (["/home/eve/photos", "/home/eve/photos/more"], "/home/eve/photos/more/1.jpg", "photos/more/1.jpg"),
        (["/home/eve/a", "/home/eve/b"], "/home/eve/b/1.jpg", "b/1.jpg"),
        (["/home/eve/a/**/*.jpg"], "/home/eve/a/x/1.jpg", "x/1.jpg"),
        (["/home/eve/z.tar"], "/home/eve/z.tar::in/1.jpg", "z.tar::in/1.jpg"),
        (["/home/eve/list.txt"], "/mnt/eve/secret/1.jpg", "1.jpg"),
        (["/home/eve", "/data/x"], "/home/eve/1.jpg", "1.jpg"),
        (["/home/eve", "s3://bucket/p"], "s3://bucket/p/1.jpg", "s3://bucket/p/1.jpg"),
        ([], "/home/eve/1.jpg", "1.jpg"),
    ],
)
def test_a_source_is_told_from_the_inputs_on(inputs: list[str], source: str, told: str) -> None:
    assert relative_to(inputs)(source) == told


def test_a_folder_with_a_dot_or_a_bracket_is_a_folder(tmp_path: Path) -> None:
    for name in ("v1.2", "x[1]"):
        (tmp_path / name).mkdir()
        assert relative_to([str(tmp_path / name)])(str(tmp_path / name / "a" / "1.jpg")) == f"{name}/a/1.jpg"


def test_a_told_source_is_its_picture_also_where_another_ends_alike() -> None:
    pictures = [Picture("1", "/home/p/0.jpg", "0.jpg"), Picture("2", "/home/p/sub/0.jpg", "sub/0.jpg")]
    one = match([ForeignName("sa_1.jpg", "0.jpg")], pictures)
    assert one.entry_of == {"1": 0}
    both = match([ForeignName("sa_1.jpg", "0.jpg"), ForeignName("sa_2.jpg", "sub/0.jpg")], pictures)
    assert both.entry_of == {"1": 0, "2": 1}
    grown = [Picture("1", "/home/p/0.jpg", "p/0.jpg"), Picture("2", "/home/q/1.jpg", "q/1.jpg")]
    assert match([ForeignName("sa_1.jpg", "0.jpg")], grown).entry_of == {"1": 0}
    assert match([ForeignName("sa_1.jpg", "/home/p/0.jpg")], grown).entry_of == {"1": 0}
