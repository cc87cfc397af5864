"""Five hundred schedules of everything keep every promise; each planted fault breaks one soon."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.simulation.actors import KINDS
from tests.simulation.planted import FAULTS, planted
from tests.simulation.play import play
from tests.simulation.run import simulate

SCHEDULES = 500
WITHIN = 100  # seeds a planted fault is found in


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(1800)  # a minute of CPU
def test_no_schedule_breaks_a_promise() -> None:
    tally = simulate(0, SCHEDULES, None)
    assert not tally.wrong, "\n".join(
        [tally.table(), *(play(int(seed)).story() for seed in list(tally.wrong)[:1])]
    )
    assert tally.kinds.keys() == KINDS.keys()
    assert tally.switches >= 100 * SCHEDULES
    met = Counter[str]()
    for name, number in tally.hits.items():
        met[name.partition("|")[2]] += number
    assert all(
        met[fate] > 50 for fate in ("before", "after", "lost answer", "kill", "kill after", "sleep")
    ), met


def test_a_seed_is_played_again_to_the_letter() -> None:
    for seed in range(5):
        assert play(seed).steps == play(seed).steps


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    with planted(name) as fault:
        found = next((seed for seed in range(WITHIN) if play(seed, fault.kinds).wrong), None)
    assert found is not None, f"{name} passed {WITHIN} schedules"
