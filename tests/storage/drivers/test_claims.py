"""Who has a picture open: said, said again, taken back, and gone by itself after some minutes."""

from __future__ import annotations

from pathlib import Path

from maskmill.storage.drivers.claims import FOLDER, FRESH_S, claim, claims, release
from maskmill.storage.stores.open import open_store


def test_a_claim_is_seen_until_it_is_taken_back_or_old(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert claims(store) == {}
    claim(store, "000000001", "Ana")
    claim(store, "000000001", "Ben")
    claim(store, "000000001", "Ana")
    claim(store, "000000002", "Ærø / ../ 'x'")
    found = claims(store)
    assert {key: sorted(one.who for one in some) for key, some in found.items()} == {
        "000000001": ["Ana", "Ben"],
        "000000002": ["Ærø / ../ 'x'"],
    }
    assert all(0 <= one.age_s < FRESH_S for some in found.values() for one in some)

    release(store, "000000001", "Ben")
    release(store, "000000001", "nobody")
    assert [one.who for one in claims(store)["000000001"]] == ["Ana"]

    (info,) = store.list(f"{FOLDER}/000000001/")
    assert claims(store, clock=lambda: info.modified_s + FRESH_S - 1).keys() >= {"000000001"}
    assert "000000001" not in claims(store, clock=lambda: info.modified_s + FRESH_S + 1)


def test_a_claim_that_cannot_be_read_is_no_claim(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    claim(store, "000000001", "Ana")
    (info,) = store.list(f"{FOLDER}/")
    store.put(info.name, b"[]")
    assert claims(store) == {}
