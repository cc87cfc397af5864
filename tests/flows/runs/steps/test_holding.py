"""Who is told of whom while a run lasts."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.flows.report.report import Silence, watching
from maskmill.flows.runs.steps import holding
from maskmill.storage.drivers.lease import announce, others
from maskmill.storage.drivers.one_writer import WriterBusy, writer
from maskmill.storage.errors import NoSuchThing
from maskmill.storage.stores.open import open_store
from tests.storage.datasets import plan_pictures


class Notes(Silence):
    """Keeps what a watcher is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_driver_is_told_of_the_other_and_leaves_no_trace(tmp_path: Path) -> None:
    root = str(tmp_path / "dataset")
    store, told = open_store(root), Notes()
    with announce(store, "generate"), watching(told), holding.driving(root):
        assert len(others(store)) == 2
    assert len(told.notes) == 1
    assert "another run works on this dataset" in told.notes[0]
    with watching(told), holding.driving(root):
        pass
    assert len(told.notes) == 1
    assert others(store) == []


def test_the_lock_is_held_inside_the_block_and_free_after_it_however_it_ends(tmp_path: Path) -> None:
    root, told = str(tmp_path / "dataset"), Notes()
    store = open_store(root)
    with pytest.raises(ZeroDivisionError), holding.writing(root, "relabel", makes=True):
        held = writer(store)
        assert held is not None and held.owner == "relabel"
        with (
            watching(told),
            pytest.raises(WriterBusy, match="relabel on"),
            holding.writing(root, "gc", makes=True),
        ):
            raise AssertionError("two writers")
        raise ZeroDivisionError
    assert "relabel on" in told.notes[0], "who is waited for is told first"
    assert writer(store) is None and others(store) == []


def test_a_visitor_beats_beside_a_writer_and_takes_nothing_from_it(tmp_path: Path) -> None:
    root = str(tmp_path / "dataset")
    plan_pictures(open_store(root), str(tmp_path / "photos"), 1)
    with holding.writing(root, "relabel"), holding.visiting(root, "tag") as store:
        assert sorted(driver.owner for driver in others(store)) == ["relabel", "tag"]
        held = writer(store)
        assert held is not None and held.owner == "relabel"


def test_a_wrong_path_gets_no_lock_written_to_it(tmp_path: Path) -> None:
    with (
        pytest.raises(NoSuchThing, match="is the path right"),
        holding.writing(str(tmp_path / "absent"), "retrain"),
    ):
        raise AssertionError("a writer of nothing")
    with (
        pytest.raises(NoSuchThing, match="is the path right"),
        holding.visiting(str(tmp_path / "absent"), "browse"),
    ):
        raise AssertionError("a visitor of nothing")
    assert not (tmp_path / "absent").exists()
