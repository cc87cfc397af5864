"""The one rule of names: every sentence of its header, and a slow twin held against it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskmill.workers.foreign.matching import ForeignName, Matching, Picture, match, parts_of


def matched(names: Sequence[str | ForeignName], sources: Sequence[str]) -> Matching:
    entries = [name if isinstance(name, ForeignName) else ForeignName(name) for name in names]
    return match(entries, [Picture(str(place), source) for place, source in enumerate(sources)])


def pairs(names: Sequence[str | ForeignName], sources: Sequence[str]) -> dict[str, str]:
    """Source -> the name that it was given."""
    found = matched(names, sources)
    texts = [name.file_name if isinstance(name, ForeignName) else name for name in names]
    return {sources[int(key)]: texts[place] for key, place in found.entry_of.items()}


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a/b.jpg", ("a", "b.jpg")),
        ("a\\b\\c.jpg", ("a", "b", "c.jpg")),
        ("./a//b.jpg", ("a", "b.jpg")),
        ("..\\photos\\a\\1.jpg", ("photos", "a", "1.jpg")),
        ("a/../b/1.jpg", ("b", "1.jpg")),
        ("\\images\\0.png", ("images", "0.png")),
        ("s3://bucket/x.tar::d/1.jpg", ("s3:", "bucket", "x.tar", "d", "1.jpg")),
        (unicodedata.normalize("NFD", "Grün/ñ.jpg"), ("Grün", "ñ.jpg")),
        ("..", ()),
        ("", ()),
    ],
)
def test_names_are_cut_into_folders_in_one_form(name: str, parts: tuple[str, ...]) -> None:
    assert parts_of(name) == parts


def test_all_folders_of_a_name_must_fit() -> None:
    assert pairs(["left/7.png"], ["/d/left/7.png", "/d/right/7.png"]) == {"/d/left/7.png": "left/7.png"}
    found = matched(["up/7.png", "ft/7.png"], ["/d/left/7.png"])
    assert (found.entry_of, found.unmatched) == ({}, (0, 1))


def test_the_longest_name_is_meant_and_takes_its_picture_from_the_shorter() -> None:
    sources = ["/p/1.jpg", "/p/val/1.jpg"]
    assert pairs(["1.jpg", "val/1.jpg"], sources) == {"/p/1.jpg": "1.jpg", "/p/val/1.jpg": "val/1.jpg"}


def test_a_name_for_two_pictures_is_nobody_s() -> None:
    found = matched(["1.jpg", "2.jpg"], ["/a/1.jpg", "/b/1.jpg", "/b/2.jpg"])
    assert found.entry_of == {"2": 1}
    assert found.ambiguous == {"0": ("1.jpg",), "1": ("1.jpg",)}
    assert (found.ambiguous_entries, found.unmatched) == (frozenset({0}), ())


def test_two_entries_of_one_name_are_nobody_s() -> None:
    found = matched(["a/1.jpg", "a\\1.jpg", "gone.jpg"], ["/x/a/1.jpg"])
    assert found.entry_of == {} and found.ambiguous == {"0": ("a/1.jpg", "a\\1.jpg")}
    assert (found.ambiguous_entries, found.unmatched) == (frozenset({0, 1}), (2,))


def test_unicode_forms_and_windows_folders_meet() -> None:
    composed, apart = (unicodedata.normalize(form, "Übung/é 1.jpg") for form in ("NFC", "NFD"))
    assert pairs([composed], [f"/home/{apart}"]) == {f"/home/{apart}": composed}
    assert pairs([apart.replace("/", "\\")], [f"/home/{composed}"]) != {}
    assert pairs(["A.jpg"], ["/x/a.jpg"]) == {}


def test_a_member_s_tar_is_a_folder() -> None:
    sources = ["/s/0.tar::k.jpg", "/s/1.tar::k.jpg"]
    assert pairs(["1.tar/k.jpg"], sources) == {"/s/1.tar::k.jpg": "1.tar/k.jpg"}


def test_a_whole_source_goes_before_file_names() -> None:
    """An export calls the picture of id 2 sa_2.jpg; another picture may be named so."""
    sources = ["/p/sa_2.jpg", "/p/z.jpg"]
    exported = [ForeignName("sa_1.jpg", "/p/sa_2.jpg"), ForeignName("sa_2.jpg", "/p/z.jpg")]
    assert pairs(exported, sources) == {"/p/sa_2.jpg": "sa_1.jpg", "/p/z.jpg": "sa_2.jpg"}
    assert pairs([ForeignName("z.jpg", "flickr")], sources) == {"/p/z.jpg": "z.jpg"}
    twice = [ForeignName("z.jpg", "/p/z.jpg"), ForeignName("z.jpg", "/p/z.jpg")]
    assert matched(twice, sources).entry_of == {}


def test_what_was_matched_is_told_and_counted_in_fingerprints() -> None:
    names = ["1.jpg", "x.jpg", "far\x1b[2J.jpg"]
    found = matched(names, ["/a/1.jpg", "/a/x.jpg", "/b/x.jpg"])
    told = found.explain([ForeignName(name) for name in names])
    assert told == (
        "1 of 3 images are in the dataset; 1 are ambiguous, they fit several pictures or share a name "
        "(x.jpg): write their folders too; 1 are not in it (far\ufffd[2J.jpg)"
    )
    assert found.digest != matched(names, ["/a/1.jpg", "/a/x.jpg"]).digest
    assert found.digest == matched(names, ["/a/1.jpg", "/a/x.jpg", "/b/x.jpg", "/c/other.jpg"]).digest


PATHS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(PATHS, max_size=6), st.lists(PATHS, max_size=6, unique=True))
def test_it_is_the_rule_said_slowly(names: list[str], sources: list[str]) -> None:
    found = matched(names, sources)
    longest = {
        source: max((n for n in names if f"/{source}".endswith(f"/{n}")), key=len, default=None)
        for source in sources
    }
    for place, source in enumerate(sources):
        name, key = longest[source], str(place)
        others = [one for one in sources if longest[one] == name]
        if name is None:
            assert key not in found.entry_of and key not in found.ambiguous
        elif names.count(name) == len(others) == 1:
            assert names[found.entry_of[key]] == name
        else:
            assert key in found.ambiguous and key not in found.entry_of
    told = len(found.entry_of) + len(found.ambiguous_entries) + len(found.unmatched)
    assert told == len(names), "every entry is matched, ambiguous or unmatched"
