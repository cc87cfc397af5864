"""What the segmenter says to clicks: embeddings held, the next picture's made ahead, answers remembered.

A kept embedding (the column `embeddings`) is read; without one the picture is embedded here and held while it
is near. An answer depends on the picture and the clicks alone, so the answer before is found by its clicks:
nothing is lost with the server, and an undone click costs nothing.

It does not know: the web, and what becomes of masks.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import ImageEmbedding, PromptableImage, Segmenter
    from maskmill.pipeline.segmenters.interactive import Clicked, Clicks

MOST_PICTURES = 6
MOST_ANSWERS = 256

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


class Pictures(Protocol):
    """Where the pictures of an `Answers` come from."""

    def pixels(self, key: str) -> NDArray[np.uint8]:
        """uint8[H, W, 3] RGB. Raises StorageError."""
        ...

    def kept(self, key: str) -> ImageEmbedding | None:
        """The embedding that the dataset keeps of a picture, None without. Raises StorageError."""
        ...


class Answers:
    """A segmenter that answers clicks on pictures of a dataset. Safe to share between threads.

    Args:
        load: the segmenter, called at the first need.
        pictures: what it is asked about.
    """

    def __init__(self, load: Callable[[], Segmenter], pictures: Pictures) -> None:
        self._load, self._pictures = load, pictures
        self._loading = threading.Lock()
        self._segmenter: Segmenter | None = None
        self._decoder = ThreadPoolExecutor(1, thread_name_prefix="decoder")  # clicks wait for no encoder
        self._held = _Newest[str, "Future[PromptableImage]"](MOST_PICTURES)
        self._answers = _Newest[tuple[str, "Clicks"], "Clicked"](MOST_ANSWERS)
        self._encoder = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    def warm(self) -> None:
        """Has the segmenter loaded ahead; returns at once."""
        self._encoder.submit(self._model)

    def prepare(self, key: str) -> None:
        """Has a picture embedded ahead; returns at once."""
        self._future(key)

    def answer(self, key: str, clicks: Clicks) -> Clicked:
        """The mask that clicks on a picture ask for.

        Raises:
            StorageError: the picture cannot be read.
            WeightsError: the segmenter cannot be loaded.
        """
        from maskmill.pipeline.segmenters.interactive import answer_clicks

        held = self._future(key).result()
        before = None if clicks.before is None else self.answer(key, clicks.before)
        found = self._answers.get((key, clicks))
        if found is None:
            threshold = self._model().mask_threshold
            found = self._decoder.submit(answer_clicks, held, clicks, before, threshold=threshold).result()
            self._answers.put((key, clicks), found)
        return found

    def close(self) -> None:
        """Ends what runs behind."""
        self._encoder.shutdown(wait=False, cancel_futures=True)
        self._decoder.shutdown(wait=False, cancel_futures=True)

    def _future(self, key: str) -> Future[PromptableImage]:
        return self._held.get_or_put(
            key, lambda: self._encoder.submit(self._embed, key), keep=_has_not_failed
        )

    def _embed(self, key: str) -> PromptableImage:
        model = self._model()
        kept = self._pictures.kept(key)
        return model.prompt(kept if kept is not None else model.embed([self._pictures.pixels(key)])[0])

    def _model(self) -> Segmenter:
        with self._loading:
            if self._segmenter is None:
                self._segmenter = self._load()
                self._decode_on_one_thread()
            return self._segmenter

    def _decode_on_one_thread(self) -> None:
        """A click's operations are small: two torch threads wait for each other longer than they save, and
        where another process or the encoder wants the core, they spin (480 ms of CPU in place of 22).

        A thread takes the number that was set last, anywhere, at its first operation: asking for it is one.
        """
        import torch

        own = torch.get_num_threads()
        self._decoder.submit(torch.set_num_threads, 1).result()
        assert self._decoder.submit(torch.get_num_threads).result() == 1
        torch.set_num_threads(own)  # it would hold for threads to come


def _has_not_failed(future: Future[PromptableImage]) -> bool:
    return not (future.done() and (future.cancelled() or future.exception() is not None))


class _Newest(Generic[KeyT, ValueT]):
    """The values asked for last. Safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._values: OrderedDict[KeyT, ValueT] = OrderedDict()

    def get(self, key: KeyT) -> ValueT | None:
        """The value, which is then the newest; None without."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: KeyT, value: ValueT) -> None:
        """Adds a value; the oldest may go."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self._most:
                self._values.popitem(last=False)

    def get_or_put(self, key: KeyT, make: Callable[[], ValueT], *, keep: Callable[[ValueT], bool]) -> ValueT:
        """The value, made anew where there is none worth keeping."""
        found = self.get(key)
        if found is None or not keep(found):
            found = make()
            self.put(key, found)
        return found
