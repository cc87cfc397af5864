"""Seconds by the name of a step."""

from __future__ import annotations

import time
from itertools import count

import pytest

from maskmill.pipeline.machine.clock import StepClock


def test_steps_of_one_name_add_up_and_errors_count(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = count(0, 2)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))
    clock = StepClock()
    with clock.step("decode"):
        pass
    with pytest.raises(RuntimeError, match="broken"), clock.step("decode"):
        raise RuntimeError("broken")
    clock.add("embed", 0.5)
    assert clock.seconds == {"decode": 4.0, "embed": 0.5}
