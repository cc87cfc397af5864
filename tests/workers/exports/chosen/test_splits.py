"""Splits: by a hash of the key, with the shares asked for, the same whatever else there is."""

from __future__ import annotations

from collections import Counter

import pytest

from maskmill.workers.exports.chosen import splits

KEYS = [f"{number:09d}" for number in range(20_000)]


def test_shares_are_what_was_asked_for() -> None:
    counts = Counter(splits.split_of(key, splits.parse("90/5/5")) for key in KEYS)
    assert set(counts) == {"train", "val", "test"}
    assert counts["val"] / len(KEYS) == pytest.approx(0.05, abs=0.005)
    assert counts["test"] / len(KEYS) == pytest.approx(0.05, abs=0.005)


def test_a_larger_share_keeps_the_images_of_the_smaller() -> None:
    small, large = splits.parse("95/5"), splits.parse("80/20")
    assert {key for key in KEYS if splits.split_of(key, small) == "val"} < {
        key for key in KEYS if splits.split_of(key, large) == "val"
    }


def test_a_key_stays_where_it_is_known_to_be() -> None:
    shares = splits.parse("60/20/20")
    assert [splits.split_of(key, shares) for key in KEYS[1:11]] == EXPECTED


EXPECTED = ["train", "val", "train", "train", "train", "train", "train", "train", "val", "train"]


@pytest.mark.parametrize("text", ["90", "90/5", "50/50/50", "a/b", "90/5/5/0", "110/-10"])
def test_what_is_no_split_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="such as 90/5/5"):
        splits.parse(text)


def test_nothing_asked_for_splits_nothing() -> None:
    assert splits.split_of("000000001", splits.parse("")) == ""
