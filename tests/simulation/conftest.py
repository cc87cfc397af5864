"""Addresses of simulated stores are known while these tests run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.simulation.machine.store import opened_by_address


@pytest.fixture(autouse=True, scope="module")
def addresses() -> Iterator[None]:
    with opened_by_address():
        yield
