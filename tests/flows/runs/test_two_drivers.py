"""Two whole runs on one dataset, started at the same moment: both end well, with one result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.generations import list_generations
from maskmill.storage.stores.open import open_store
from tests.fakes import write_pictures
from tests.flows.runs.test_generate import Maskmill


@pytest.mark.ray
@pytest.mark.drill
@pytest.mark.timeout(900)
def test_two_drivers_started_at_once_end_with_one_result(nano_weights: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 16)
    dataset = tmp_path / "data"
    homes = [Maskmill(tmp_path / f"prefect-{i}", nano_weights) for i in range(2)]
    drivers = [
        home.start(dataset, tmp_path / "in", "--json", "--workers", "1", separate=True) for home in homes
    ]
    told = [driver.communicate(timeout=600) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], told
    reports = [json.loads(out) for out, _ in told]
    for report in reports:
        assert (report["annotated"], report["missing"], report["duplicated"]) == (16, 0, 0)
        assert report["generation"] == 1
    store = open_store(dataset)
    assert list_generations(store) == [1]
    assert verify(store, deep=True).ok
    assert len(list(dataset.glob("plan/*.json"))) == 1
    assert len(list(dataset.glob("masks/*/commits/*.json"))) == 8
    assert any("another run works on this dataset" in err for _, err in told), told
