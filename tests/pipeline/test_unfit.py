"""A picture that a model can't be given is told apart from a model that doesn't work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from maskmill.pipeline.unfit import MODEL_REFUSED, UnfitPicture, asked, plain_picture


def a_model(error: BaseException, *, broken: bool) -> Callable[[bool], None]:
    """Raises for the odd picture; a broken one for the plain picture too."""

    def call(odd: bool) -> None:
        if odd or broken:
            raise error

    return call


ERRORS = (
    ValueError("mean must have 1 elements if it is an iterable, got 3"),
    RuntimeError("Calculated padded input size per channel: (1 x 5). Kernel size can't be greater"),
    ZeroDivisionError("division by zero"),
    IndexError("index 0 is out of bounds for dimension 0 with size 0"),
    TypeError("'NoneType' object is not iterable"),
    AssertionError(),
)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_only_the_picture_meets_is_its_own(error: BaseException) -> None:
    model = a_model(error, broken=False)
    with pytest.raises(UnfitPicture) as raised, asked("captioner", lambda: model(False)):
        model(True)
    assert raised.value.reason == MODEL_REFUSED
    assert f"the captioner raised {type(error).__name__}" in str(raised.value)
    assert str(error)[:40] in str(raised.value)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_the_plain_picture_meets_too_is_not(error: BaseException) -> None:
    model = a_model(error, broken=True)
    with pytest.raises(type(error)) as raised, asked("captioner", lambda: model(False)):
        model(True)
    assert raised.value is error


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), OSError(5)])
def test_memory_and_the_system_are_nobodys_picture(error: BaseException) -> None:
    model = a_model(error, broken=False)
    with pytest.raises(type(error)) as raised, asked("detector", lambda: model(False)):
        model(True)
    assert raised.value is error


def test_a_known_reason_stays() -> None:
    with pytest.raises(UnfitPicture) as raised, asked("segmenter", lambda: pytest.fail("not asked")):
        raise UnfitPicture("too_thin", "an image of 1x9 px is too thin")
    assert raised.value.reason == "too_thin"


def test_the_plain_picture_is_a_picture() -> None:
    picture = plain_picture()
    assert picture.shape == (192, 256, 3) and picture.dtype == np.uint8 and picture.std() > 40
