"""What the stages of words have in common: a model that is loaded once, and samples of one JSON record.

A stage gives what its record means (`from_record`) and makes results with `self.model`; see captions.py,
labels.py and names.py. It doesn't know which model that is, nor what a record holds.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

from maskmill.workers.stages.base import Stage

Model = TypeVar("Model")


class WordStage(Stage, Generic[Model]):
    """See `Stage`.

    Args:
        load: gives the model; called once, when it is first needed.
        fingerprint, models: of the column version.
    """

    def __init__(self, load: Callable[[], Model], *, fingerprint: str, models: Mapping[str, str]) -> None:
        self._load = load
        self.fingerprint = fingerprint
        self.models = models

    @cached_property
    def model(self) -> Model:
        """What `load` gives."""
        return self._load()

    def prepare(self) -> None:
        """See `Stage.prepare`."""
        _ = self.model

    def decode(self, files: Mapping[str, bytes]) -> object:
        """See `Stage.decode`. Raises ValueError, KeyError."""
        return self.from_record(json.loads(files["json"]))

    @abstractmethod
    def from_record(self, record: Any) -> object:
        """The output that made a stored record. Raises ValueError, KeyError for one that is none of it."""
