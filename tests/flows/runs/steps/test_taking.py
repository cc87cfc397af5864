"""Steps of a run: plain calls, or whatever the one who takes them makes of them."""

from __future__ import annotations

from typing import Any

import pytest

from maskmill.flows.runs.steps.taking import Step, step, taking


@step("double", may_pass=True)
def double(number: int, *, again: bool = False) -> int:
    """Twice, or four times."""
    return number * (4 if again else 2)


def test_a_step_is_a_plain_call_until_somebody_takes_it() -> None:
    taken: list[tuple[str, bool, tuple[Any, ...], dict[str, Any]]] = []

    def take(one: Step, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        taken.append((one.title, one.may_pass, args, kwargs))
        return one.work(*args, **kwargs) + 1

    assert double(3) == 6
    with taking(take):
        assert double(3, again=True) == 13
    assert taken == [("double", True, (3,), {"again": True})]
    assert double(3) == 6, "and again after the block"


def test_a_step_keeps_its_name_and_words_and_lets_errors_through() -> None:
    assert (double.__name__, double.__doc__) == ("double", "Twice, or four times.")
    with pytest.raises(TypeError), taking(lambda one, args, kwargs: one.work(*args, **kwargs)):
        double()  # type: ignore[call-arg]
