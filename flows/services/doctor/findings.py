"""What the doctor says: a line each, with what it found and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

FINE, LOOK, WRONG = "fine", "look", "wrong"
"""A run works; it works, but not as one may think; it does not work."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line.

    Attributes:
        name: of what was looked at.
        state: FINE, LOOK or WRONG.
        says: what was found.
        cure: what to do; "" where nothing is to be done.
    """

    name: str
    state: str
    says: str
    cure: str = ""

    def __post_init__(self) -> None:
        assert self.state in (FINE, LOOK, WRONG)
        assert bool(self.cure) == (self.state != FINE), (
            f"{self.name}: a cure is said where there is one to say"
        )


def fine(name: str, says: str) -> Finding:
    """Nothing to do."""
    return Finding(name=name, state=FINE, says=says)


def look(name: str, says: str, cure: str) -> Finding:
    """Runs work, but one should know."""
    return Finding(name=name, state=LOOK, says=says, cure=cure)


def wrong(name: str, says: str, cure: str) -> Finding:
    """Runs don't work."""
    return Finding(name=name, state=WRONG, says=says, cure=cure)
