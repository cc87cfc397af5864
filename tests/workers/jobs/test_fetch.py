"""Weights by a word or an address, from a server on loopback: whole and checked, or not there."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.settings.families import family_of
from maskmill.pipeline.settings.published import PUBLISHED, published
from maskmill.pipeline.weights import weights
from maskmill.pipeline.weights.errors import DamagedWeights, MissingWeights
from maskmill.pipeline.weights.kept import read_record
from maskmill.workers.jobs import fetch as fetching
from maskmill.workers.jobs.fetch import Wanted, bring_published, fetch, of_published, wanted
from tests.workers.jobs.file_server import Files, serving_files

DATA = random.Random(0).randbytes(3_300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server() -> Iterator[Files]:
    with serving_files() as running:
        running.files["/w.pth"] = DATA
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MASKMILL_CACHE", str(tmp_path / "cache"))
    for name in (*fetching.OFFLINE, "MASKMILL_WEIGHTS_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetching.time, "sleep", lambda seconds: None)
    return tmp_path / "cache" / "weights"


def one(server: Files, **changes: object) -> Wanted:
    known = Wanted(
        url=f"{server.url}/w.pth", file_name="w.pth", size_bytes=len(DATA), sha256=SHA256, told_by="me"
    )
    return dataclasses.replace(known, **changes)  # type: ignore[arg-type]


def test_a_file_comes_whole_once_and_is_recorded(server: Files, cache: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(one(server), lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA)) and len(seen) > 2
    record = read_record(path)
    assert record is not None and record.sha256 == SHA256 and record.checked_against == "me"
    assert fetch(one(server)) == path and len(server.asked) == 1
    assert {entry.name for entry in cache.iterdir()} == {"w.pth", "w.pth.json", ".w.pth.lock"}


def test_a_cut_connection_is_taken_up_where_it_broke(server: Files) -> None:
    server.cuts = [1_000_000, 1_000_000]
    assert fetch(one(server)).read_bytes() == DATA
    assert [asked for _, asked in server.asked] == [None, "bytes=1000000-", "bytes=2000000-"]


def test_a_later_try_goes_on_where_the_last_one_ended(server: Files, cache: Path) -> None:
    server.cuts = [2_000_000, *[0] * 20]
    with pytest.raises(MissingWeights, match="What came is kept; the same command goes on"):
        fetch(one(server))
    assert (cache / "w.pth.part").stat().st_size == 2_000_000 and not (cache / "w.pth").exists()
    server.cuts, server.asked = [], []
    assert fetch(one(server)).read_bytes() == DATA
    assert server.asked == [("/w.pth", "bytes=2000000-")]


def test_another_file_at_the_address_is_not_joined_to_the_part_of_the_first(server: Files) -> None:
    server.cuts = [2_000_000, *[0] * 20]
    with pytest.raises(MissingWeights):
        fetch(one(server, sha256=None, size_bytes=None))
    newer = random.Random(1).randbytes(2_500_000)
    server.cuts, server.files["/w.pth"] = [], newer
    assert fetch(one(server, sha256=None, size_bytes=None)).read_bytes() == newer


def test_a_server_without_ranges_begins_again(server: Files) -> None:
    server.takes_ranges, server.cuts = False, [1_000_000]
    assert fetch(one(server)).read_bytes() == DATA


def test_another_sha256_is_refused_and_removed(server: Files, cache: Path) -> None:
    server.files["/w.pth"] = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(DamagedWeights, match=r"w\.pth from .* has sha256 .* but me says .* it was removed"):
        fetch(one(server))
    assert not (cache / "w.pth").exists() and not (cache / "w.pth.part").exists()


def test_what_nobody_vouches_for_is_recorded_and_held_against_the_record(server: Files, cache: Path) -> None:
    url = f"{server.url}/w.pth"
    first = wanted(url)
    assert first.sha256 is None
    record = read_record(fetch(first))
    assert record is not None and record.sha256 == SHA256 and record.checked_against == ""
    (cache / "w.pth").unlink()
    again = wanted(url)
    assert again.sha256 == SHA256 and "first fetch" in again.told_by
    server.files["/w.pth"] = b"changed"
    with pytest.raises(DamagedWeights, match="the record of its first fetch here says"):
        fetch(again)


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, fetching.TRIES)])
def test_a_refusal_is_told_and_only_a_passing_one_tried_again(server: Files, status: int, tries: int) -> None:
    server.statuses = [status] * 20
    with pytest.raises(MissingWeights, match=rf"cannot be fetched from 127\.0\.0\.1:\d+: .*{status}"):
        fetch(one(server))
    assert len(server.asked) == tries


@pytest.mark.parametrize("name", fetching.OFFLINE)
def test_offline_asks_nobody_and_finds_what_is_here(
    server: Files, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(MissingWeights, match=f"{name} forbids fetching it: unset it, or bring the file"):
        fetch(one(server))
    assert server.asked == []
    monkeypatch.delenv(name)
    path = fetch(one(server))
    monkeypatch.setenv(name, "1")
    assert fetch(one(server)) == path


def test_several_processes_fetch_once(server: Files, cache: Path) -> None:
    code = (
        "import sys; from maskmill.workers.jobs.fetch import fetch, wanted; print(fetch(wanted(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, f"{server.url}/w.pth"]
    several = [
        subprocess.Popen(command, env={**os.environ}, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    told = {process.communicate(timeout=120)[0].strip() for process in several}
    assert told == {str(cache / "w.pth")} and len(server.asked) == 1


def test_the_words_name_models_and_files_that_are_looked_for(cache: Path) -> None:
    assert len({row.name for row in PUBLISHED}) == len({row.sha256 for row in PUBLISHED}) == len(PUBLISHED)
    for row in PUBLISHED:
        assert family_of("segmenter", row.model).takes_file
        assert published(row.name) is published(row.file_name) is row
        assert row.file_name in family_of("segmenter", row.model).example or row.model == "sam2"
        assert of_published(row).path == cache / row.file_name


@pytest.mark.parametrize("source", ["mobile_sam", "mobile_sam.pt"])
def test_settings_may_say_the_word_or_the_authors_file_name(
    source: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SegmenterSettings(model="student:tiny_vit_5m", weights=source)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MissingWeights, match=r"`maskmill fetch mobile_sam` brings it \(41 MB, Apache-2.0"):
        weights.resolve(settings)
    cache.mkdir(parents=True)
    (cache / "mobile_sam.pt").write_bytes(b"fetched")
    assert weights.resolve(settings) == cache / "mobile_sam.pt"
    (tmp_path / source).write_bytes(b"by hand")
    assert weights.resolve(settings) == Path(source), "a path that is there comes first"


def test_a_worker_on_another_node_brings_what_the_run_names(
    server: Files, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(PUBLISHED[-1], size_bytes=len(DATA), sha256=SHA256)
    monkeypatch.setattr("maskmill.pipeline.settings.published.PUBLISHED", (small,))
    monkeypatch.setenv("MASKMILL_WEIGHTS_MIRROR", f"{server.url}/mirror/")
    server.files["/mirror/mobile_sam.pt"] = DATA
    bring_published(SegmenterSettings(model="student:tiny_vit_5m", weights="mobile_sam"))
    assert (cache / "mobile_sam.pt").read_bytes() == DATA
    bring_published(SegmenterSettings(model="nano"))
    bring_published(SegmenterSettings(model="vit_b", weights="/models/x.pth"))
    assert len(server.asked) == 1


def test_what_is_neither_word_nor_address_is_told(cache: Path) -> None:
    for source in ("vit_x", "ftp://host/w.pth", "http://host/"):
        with pytest.raises(MissingWeights, match=r"is no word for weights .* vit_h, vit_l, vit_b"):
            wanted(source)


def command(*words: str, answer: str = "") -> subprocess.CompletedProcess[str]:
    code = "from maskmill.flows.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "fetch", *words],
        input=answer,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_tells_first_and_fetches_when_told_to(server: Files, cache: Path) -> None:
    url = f"{server.url}/w.pth"
    asked = command(url)
    assert asked.returncode == 2 and "--yes" in asked.stderr and server.asked == []
    for part in ("w.pth", url, str(cache), "recorded at this first fetch"):
        assert part in asked.stdout
    done = command(url, "--yes", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["fetched"]
    assert row == {
        "file": "w.pth",
        "path": str(cache / "w.pth"),
        "was_here": False,
        "sha256": SHA256,
        "checked_against": None,
    }
    again = command(url)
    assert again.returncode == 0 and "Here already" in again.stdout and len(server.asked) == 1


def test_the_command_refuses_a_mirrors_wrong_file_and_lists_the_words(
    server: Files, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKMILL_WEIGHTS_MIRROR", server.url)
    server.files["/mobile_sam.pt"] = b"another"
    refused = command("mobile_sam", "--yes")
    assert refused.returncode == 2 and "maskmill's table says 6dbb90523a35" in refused.stderr
    assert "41 MB, Apache-2.0" in refused.stdout and "github.com/ChaoningZhang/MobileSAM" in refused.stdout
    listed = json.loads(command("--json").stdout)["weights"]
    assert [row["name"] for row in listed] == [row.name for row in PUBLISHED]
    assert not any(row["here"] for row in listed)
