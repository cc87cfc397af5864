from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.pipeline.words.vocabulary import MAX_PHRASES, load_vocabulary


def test_shipped_lists_are_whole() -> None:
    coco, lvis = load_vocabulary("coco"), load_vocabulary("lvis")
    assert (len(coco), coco[0], coco[-1]) == (80, "person", "toothbrush")
    assert (len(lvis), lvis[0], lvis[-1]) == (1203, "aerosol can", "zucchini")
    assert not any("_" in name for name in lvis)


def test_a_file_or_a_list_is_cleaned(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("# colours\nred\n\n  deep \t blue \ncafe\u0301\u0007\u200b\nred\n", encoding="utf-8")
    assert load_vocabulary(str(path)) == ("red", "deep blue", "caf\u00e9")
    assert load_vocabulary(["a\u2028b", "a b", " "]) == ("a b",)


def test_ten_thousand_words_are_fine() -> None:
    assert len(load_vocabulary([f"word {i}" for i in range(10_000)])) == 10_000


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ([], "has no phrases"),
        (["", " \n"], "has no phrases"),
        (["x" * 10_000], "a phrase of 10000 characters"),
        ("no/such/words.txt", "cannot be read"),
    ],
)
def test_what_is_no_vocabulary_is_told(source: str | list[str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_vocabulary(source)


def test_too_many_and_no_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most"):
        load_vocabulary([str(i) for i in range(MAX_PHRASES + 1)])
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        load_vocabulary(str(tmp_path / "bytes.txt"))
