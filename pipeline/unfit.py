"""A picture that a model can't be given, told apart from a model that doesn't work.

A model may raise anything for one odd picture, and whoever annotates a million of them goes on with the
others. It raises the same kinds of errors where it is broken, or where we call it wrongly, and then to go on
would reject them all. `asked` tells the two apart by asking once more with a picture that every model can be
given: what meets only the picture is `UnfitPicture`, what meets the plain one too passes as it is.

It does not know: what becomes of the picture (workers/shard/rejects.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from maskmill.pipeline.machine.batches import is_out_of_memory

TOO_THIN = "too_thin"
MODEL_REFUSED = "model_refused"

MAX_DETAIL_CHARS = 300

_RAISED = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What models and their libraries raise; OSError and what ends a process are none of a picture."""


class UnfitPicture(ValueError):
    """A picture that a model can't be given: `reason` is a short word to count by, `detail` a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


@contextlib.contextmanager
def asked(role: str, with_plain_picture: Callable[[], object]) -> Iterator[None]:
    """Around a call of a model: an error that only this picture meets leaves as `UnfitPicture`.

    Args:
        role: whose model it is, for the detail.
        with_plain_picture: the same call with `plain_picture`.

    Raises:
        UnfitPicture: the model works with the plain picture and not with the given one.
    """
    try:
        yield
    except UnfitPicture:
        raise
    except _RAISED as error:
        if is_out_of_memory(error) or not _works(with_plain_picture):
            raise
        words = " ".join(str(error).split())[:MAX_DETAIL_CHARS]
        raise UnfitPicture(MODEL_REFUSED, f"the {role} raised {type(error).__name__}: {words}") from error


def _works(call: Callable[[], object]) -> bool:
    try:
        call()
    except _RAISED:
        return False
    return True


def plain_picture() -> npt.NDArray[np.uint8]:
    """A picture that any model can be given: uint8[192, 256, 3], a ramp each way and a block of another
    colour."""
    picture_HW3 = np.zeros((192, 256, 3), np.uint8)
    picture_HW3[..., 0] = np.arange(256, dtype=np.uint8)
    picture_HW3[..., 1] = np.arange(192, dtype=np.uint8)[:, None]
    picture_HW3[48:144, 64:192] = (220, 60, 40)
    return picture_HW3
