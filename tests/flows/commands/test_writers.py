"""Which commands hold the dataset's lock, which only a heartbeat, which only read: each, really run while
another holds the lock. A command that is new must be put into the table."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from maskmill.flows.cli import app
from maskmill.flows.config import load_config
from maskmill.storage.drivers.lease import Lease, others
from maskmill.storage.drivers.one_writer import writer, writing
from maskmill.storage.stores.open import open_store
from tests.fakes import write_pictures
from tests.flows.runs.test_relabel import SETS, annotate

GENERATE = ("{dataset}", "--input", "{inputs}", "--recipe", "nano", *(w for s in SETS for w in ("--set", s)))

LOCK = (
    ("relabel", "{dataset}"),
    ("retrain", "{dataset}"),
    ("distill", "nano", "tiny", "{dataset}"),
    ("loop", "{dataset}", "--input", "{inputs}", "--gate", "{coco}", "{folder}"),
    ("review", "{dataset}", "--truth", "{coco}", "{folder}", "--images", "1"),
    ("import", "{dataset}", "{coco}"),
    ("forget", "{dataset}", "1", "--yes"),
    ("gc", "{dataset}", "--yes"),
    ("verify", "{dataset}", "--repair", "--yes"),
    ("evaluate", "{dataset}", "--audit"),
)
"""Refused while another writer holds the dataset."""

LEASE = {
    "generate": ("generate", *GENERATE),
    "ingest": ("ingest", *GENERATE),
    "tag": ("tag", "{dataset}", "good"),
    "promote": ("promote", "{dataset}", "--to", "0"),
}
"""Run beside any writer, and are seen by a heartbeat; ingest beats as "generate", whose first half it is."""

READ = (
    ("status", "{dataset}"),
    ("verify", "{dataset}"),
    ("verify", "{dataset}", "--repair"),
    ("preview", "{dataset}", "--out", "{folder}/preview"),
    ("export", "{dataset}", "{folder}/export"),
    ("log", "{dataset}"),
    ("diff", "{dataset}", "1", "1"),
    ("show", "{dataset}", "1"),
    ("query", "{dataset}", "select count(*) from masks"),
    ("duplicates", "{dataset}"),
    ("tag", "{dataset}"),
    ("promote", "{dataset}"),
    ("evaluate", "{dataset}", "--agree", "1", "1"),
    ("relabel", "{dataset}", "--dry-run", "--set", "masks.predicted_iou=0.4"),
    ("gc", "{dataset}"),
    ("forget", "{dataset}", "1"),
)
"""Change nothing of the dataset."""

ELSEWHERE = {
    "tune": "annotates a sample of files in memory",
    "demo": "makes a dataset of its own, as generate does",
    "scenes": "writes pictures",
    "photos": "writes pictures",
    "drill": "makes a dataset of its own",
    "probe": "tries a store in a folder of its own and removes it",
    "up": "runs services",
    "deploy": "registers with Prefect; its runs are the commands' own",
    "prefect": "Prefect's own commands",
    "models": "looks at what is installed",
    "config": "looks at recipes",
    "fetch": "brings weights onto this machine",
    "doctor": "looks around this machine",
    "verifier": "reads what people saved and writes a file of weights",
    "prove": "holds models against each other on a folder of pictures",
    "browse": "a page until it is stopped; what people save in it needs no lock",
    "push": "reads a generation, and writes to a hub",
}
"""Take no lock: they have no dataset that is there before, or stay beside its columns."""


def test_every_command_is_in_the_table() -> None:
    commands = {one.name or str(one.callback and one.callback.__name__) for one in app.registered_commands}
    groups = {str(one.name) for one in app.registered_groups}
    told = {words[0] for words in (*LOCK, *LEASE.values(), *READ)} | ELSEWHERE.keys()
    assert told == commands | groups


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with inputs and a dataset of them, complete by `GENERATE`'s settings, and published."""
    folder = tmp_path_factory.mktemp("made")
    write_pictures(folder / "inputs", 2)
    annotate(str(folder / "data"), [str(folder / "inputs")], load_config("nano", sets=SETS))
    return folder


@pytest.fixture
def places(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A copy of it for one test, with an object that nothing names, old enough to be removed."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("MASKMILL_HOME", str(tmp_path / "home"))
    shutil.copytree(made / "data", tmp_path / "data")
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": [], "categories": []}')
    lost = next((tmp_path / "data").glob("masks/*/data")) / "000000.lost.tar"
    lost.write_bytes(b"1234")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(lost, (two_days_ago, two_days_ago))
    names = {"dataset": "data", "coco": "coco.json", "folder": "."}
    return {name: str(tmp_path / place) for name, place in names.items()} | {"inputs": str(made / "inputs")}


@pytest.fixture
def beating(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Owners of the heartbeats that began."""
    owners: list[str] = []
    enter = Lease.__enter__

    def begin(lease: Lease) -> Lease:
        owners.append(lease._owner)
        return enter(lease)

    monkeypatch.setattr(Lease, "__enter__", begin)
    return owners


def run(words: tuple[str, ...], places: dict[str, str]) -> Result:
    return CliRunner().invoke(app, [word.format(**places) for word in words])


def contents(dataset: str) -> dict[str, bytes]:
    """All objects; of heartbeats, which are rewritten all the time, the names."""
    files = [path for path in Path(dataset).rglob("*") if path.is_file()]
    return {str(path): b"" if path.parent.name == "drivers" else path.read_bytes() for path in files}


def ids(words: tuple[str, ...]) -> str:
    return " ".join([words[0], *(word for word in words[1:] if word.startswith("--"))])[:40]


@pytest.mark.parametrize("words", LOCK, ids=ids)
def test_a_command_with_the_lock_waits_for_its_holder(words: tuple[str, ...], places: dict[str, str]) -> None:
    dataset = places["dataset"]
    if words[0] == "verify":
        next(Path(dataset).glob("masks/*/data/000001.*.tar")).unlink()
    store = open_store(dataset)
    with writing(store, "the other one"):
        before = contents(dataset)
        done = run(words, places)
        told = " ".join(done.output.split())
        assert done.exit_code == 3, done.output
        assert "the other one on" in told and "works on this dataset" in told
        after = contents(dataset)
        assert before.items() <= after.items(), "nothing is changed or gone"
        new = {name.removeprefix(f"{dataset}/") for name in after.keys() - before.keys()}
        marked = {name for name in new if name.startswith("plan/")}
        assert new == (marked if words[0] == "forget" else set()), "forget marks first, whoever works"
    assert writer(store) is None and others(store) == []


@pytest.mark.parametrize("owner", LEASE, ids=str)
def test_a_command_with_a_heartbeat_runs_beside_the_lock(
    owner: str, places: dict[str, str], beating: list[str]
) -> None:
    store = open_store(places["dataset"])
    with writing(store, "the other one"):
        beating.clear()
        done = run(LEASE[owner], places)
        assert done.exit_code == 0, done.output
        assert beating == ["generate" if owner == "ingest" else owner]
        assert [driver.owner for driver in others(store)] == ["the other one"]
        assert writer(store) is not None


@pytest.mark.parametrize("words", READ, ids=ids)
def test_a_command_that_reads_changes_nothing(
    words: tuple[str, ...], places: dict[str, str], beating: list[str]
) -> None:
    with writing(open_store(places["dataset"]), "the other one"):
        before = contents(places["dataset"])
        beating.clear()
        done = run(words, places)
        assert done.exit_code == 0, done.output
        assert contents(places["dataset"]) == before
        assert beating == []
