"""Images resized before their turn: another thread does it, and the model finds them by their memory.

What is never asked for is forgotten when more than `MOST` wait.
"""

from __future__ import annotations

import threading

from maskmill.pipeline.pixels import Pixels

MOST = 64
"""Resized images that wait at once; 3 MiB each at 1,024 px."""

_Place = tuple[int, tuple[int, ...], tuple[int, ...]]


class ResizedAhead:
    """Resized images that wait for their turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[_Place, Pixels] = {}

    def put(self, image: Pixels, resized: Pixels) -> None:
        """Keeps an image's resized form.

        Args:
            image: uint8[H, W, 3]; it must live on until it is asked for.
            resized: uint8[h, w, 3].
        """
        with self._lock:
            while len(self._waiting) >= MOST:
                self._waiting.pop(next(iter(self._waiting)))
            self._waiting[_place(image)] = resized

    def take(self, image: Pixels) -> Pixels | None:
        """The image's resized form, given once; None if it isn't there.

        Args:
            image: the same memory, shape and strides.
        """
        with self._lock:
            return self._waiting.pop(_place(image), None)


def _place(image: Pixels) -> _Place:
    return int(image.__array_interface__["data"][0]), image.shape, image.strides
