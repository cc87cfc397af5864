"""Files that are no pictures are counted and named when inputs are planned."""

from __future__ import annotations

from pathlib import Path

from maskmill.flows.config import load_config
from maskmill.flows.report.report import Tally, watching
from maskmill.flows.runs.steps import planning
from maskmill.storage.plan.inputs import most_of
from tests.fakes import write_pictures


class Noted:
    """A watcher that keeps its notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def step(self, title: str, counts: str = "") -> None: ...

    def count(self, done: int, total: int | None = None) -> None: ...

    def tally(self, tally: Tally) -> None: ...

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_other_files_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 2)
    for name in ("a.mp4", "b.mp4", "c.heic", "README", ".hidden", "lonely.txt"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    noted = Noted()
    with watching(noted):
        planning.plan_images(str(tmp_path / "ds"), [str(tmp_path / "photos")], load_config(), None)
    assert noted.notes == [
        "not used of the inputs: 2 .mp4, 1 (hidden), 1 (no ending), 1 .heic, 1 .txt",
    ]


def test_nothing_else_is_nothing_to_say(tmp_path: Path) -> None:
    write_pictures(tmp_path / "photos", 2)
    noted = Noted()
    with watching(noted):
        planning.plan_images(str(tmp_path / "ds"), [str(tmp_path / "photos")], load_config(), None)
    assert noted.notes == []


def test_many_kinds_end_in_a_sum() -> None:
    assert most_of({f".{number}": 1 for number in range(12)}, 2) == "1 .0, 1 .1, 10 others"
    assert most_of({}) == ""
