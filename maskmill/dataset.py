"""`open`: a dataset read in this process: its samples, its tables, and as torch sees it.

A `Dataset` is one generation, an immutable manifest, so what it gives doesn't change while others write.
Samples come in key order, shard by shard as one stream each; columns are joined by key (workers/reading), and
a picture that people reviewed has their masks, as in exports, unless automatic ones alone are asked for. It
is small and picklable: data loaders' workers get it by value and open files or connections of their own.

It only reads, and knows no Ray, Prefect or writer's lock. Images without masks are passed over; `table`
has them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

from maskmill.masks import Masks
from maskmill.pipeline.checks import check_choice
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.errors import DamagedObject, DatasetError
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.query.query import load_table, table_names
from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.formats import PEOPLE, PREFERENCES
from maskmill.workers.foreign.images.codec import DecodeError, decode_image
from maskmill.workers.reading.samples import AnnotatedSample, read_annotated
from maskmill.workers.reading.survey import annotated_counts, mask_rows
from maskmill.workers.reading.word_rows import rows_for
from maskmill.workers.run.columns import MASKS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from maskmill.storage.dataset.generations import Generation
    from maskmill.torch_samples import TorchSamples
    from maskmill.web_samples import WebPipeline

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Sample:
    """A photograph of a dataset and what is known of it.

    Attributes:
        stored: as read; its bytes are decoded when asked for.
    """

    stored: AnnotatedSample = field(repr=False)

    @property
    def key(self) -> str:
        """The sample's, unique in its dataset."""
        return self.stored.key

    @property
    def jpeg(self) -> bytes:
        """The photograph, a JPEG that any reader shows upright. Raises DamagedObject."""
        return self.stored.jpeg()

    @cached_property
    def image(self) -> npt.NDArray[np.uint8]:
        """The photograph: uint8[H, W, 3], RGB, upright. Raises DamagedObject."""
        try:
            return decode_image(self.jpeg)
        except DecodeError as exc:
            raise DamagedObject(f"image {self.key}: cannot be decoded ({exc})") from exc

    @cached_property
    def masks(self) -> Masks:
        """Its masks, with captions, labels and names where the generation has them."""
        return Masks(record=self.record, picture=self._picture)

    @property
    def made_by(self) -> str:
        """Whose masks these are: "automatic"; "person" or "oracle" where the picture was reviewed, and
        `masks.made_by` says it of each; an import's column by its name."""
        review = self.record.get("review")
        if isinstance(review, Mapping):
            return str(review.get("by", "person"))
        return "automatic" if self.stored.column == MASKS else self.stored.column

    @property
    def record(self) -> Mapping[str, Any]:
        """SA-1B's record, the words of other columns put in (docs/formats.md)."""
        return self.stored.record

    @property
    def caption(self) -> str | None:
        """The captions column's best, else what came with the image."""
        told = self.record["image"].get("caption")
        came_with = self.stored.image.caption if self.stored.image is not None else None
        return told if told is not None else came_with

    @property
    def source(self) -> str | None:
        """Where the photograph came from; `tar::member` inside a tar."""
        return self.stored.image.source if self.stored.image is not None else None

    def _picture(self) -> npt.NDArray[np.uint8]:
        return self.image

    def __repr__(self) -> str:
        return f"<Sample {self.key}: {self.masks!r}>"

    def _repr_png_(self) -> bytes:
        return self.masks._repr_png_()


@dataclass(frozen=True)
class Dataset:
    """A generation of a dataset, to be read; `maskmill.open` makes it.

    `len(dataset)` counts the images that have masks, `for sample in dataset` reads them in key order,
    `dataset["000000001"]` reads one.

    Attributes:
        generation: number, columns, models, settings, totals.
        column: that has the masks.
        prefer: "people": their masks where a picture was reviewed; "automatic": these alone.
    """

    generation: Generation
    column: str = "masks"
    prefer: str = PEOPLE

    @property
    def root(self) -> str:
        """The dataset's address."""
        return self.generation.store.root

    @property
    def shards(self) -> tuple[int, ...]:
        """The shards that have masks: parts to be read apart from each other."""
        store, people = self.generation.store, self.prefer == PEOPLE
        return tuple(row.shard for row in mask_rows(store, self.generation, self.column, people=people))

    @cached_property
    def counts(self) -> Mapping[int, int]:
        """Images with masks, by shard. Reads records where people reviewed some of a shard's pictures.

        Raises:
            DamagedObject: such a shard is not what was written.
        """
        people = self.prefer == PEOPLE
        return annotated_counts(self.generation.store, self.generation, self.column, people=people)

    @property
    def tables(self) -> tuple[str, ...]:
        """What `to_pandas` and `table` can give: "images", "masks", "shards", and word columns."""
        return table_names(self.generation)

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __iter__(self) -> Iterator[Sample]:
        return self.samples()

    def __getitem__(self, key: str) -> Sample:
        """The sample of a key; reads its shard up to there.

        Raises:
            KeyError: the generation has no masks of it.
        """
        try:
            shard = load_plans(self.generation.store).shard_of(key)
        except (DatasetError, ValueError) as exc:
            raise KeyError(key) from exc
        for sample in self.samples(shards=[shard] if shard in self.shards else []):
            if sample.key == key:
                return sample
        raise KeyError(key)

    def __repr__(self) -> str:
        return f"<Dataset {self.root}, generation {self.generation.number}: {len(self)} images with masks>"

    def samples(self, *, shards: Sequence[int] | None = None, pictures: bool = True) -> Iterator[Sample]:
        """The images that have masks, in key order; columns joined.

        Args:
            shards: only these, in this order; see `shards`.
            pictures: False leaves the photographs unread: records alone, much faster.

        Raises:
            DamagedObject: a shard is not what its record says; known at the latest at its end.
            SourceChanged: a picture that is kept at its source isn't there as planned.
        """
        store, generation = self.generation.store, self.generation
        found = read_annotated(
            store,
            generation,
            shards=shards,
            pictures=pictures,
            column=self.column,
            people=self.prefer == PEOPLE,
            words=True,
        )
        for sample in found:
            yield Sample(sample)

    def table(self, name: str = "masks") -> pa.Table:
        """One of `tables` as pyarrow's table, whole, in memory: of "masks", a row per mask with its box,
        area, scores and image key; of "images", a row per image with its source.

        Raises:
            InputError: no such table; says which there are.
            DamagedObject: a file cannot be read.
        """
        return load_table(self.generation.store, self.generation, name, rows_for)

    def to_pandas(self, name: str = "masks") -> pd.DataFrame:
        """The same as a pandas data frame.

        Raises:
            ImportError: pandas is not installed.
            InputError, DamagedObject: as `table`.
        """
        try:
            import pandas  # noqa: F401  (pyarrow's own message names no cure)
        except ImportError as exc:
            raise ImportError("to_pandas needs pandas: pip install pandas") from exc
        frame: pd.DataFrame = self.table(name).to_pandas()
        return frame

    @overload
    def to_torch(self, transform: None = None, *, shuffle: int = 0) -> TorchSamples[dict[str, Any]]:
        """Without a transform: dictionaries of tensors."""

    @overload
    def to_torch(self, transform: Callable[[Sample], T], *, shuffle: int = 0) -> TorchSamples[T]:
        """With one: what it makes."""

    def to_torch(self, transform: Callable[[Sample], Any] | None = None, *, shuffle: int = 0) -> Any:
        """The samples as a `torch.utils.data.IterableDataset`, shared out among workers and ranks.

        Args:
            transform: what becomes of a `Sample`; by default a dictionary of tensors, see
                `maskmill.torch_samples.to_tensors`.
            shuffle: samples that wait to be drawn from, beside shards in another order; 0 keeps the order.
        """
        from maskmill.torch_samples import TorchSamples, to_tensors

        return TorchSamples(self, transform or to_tensors, shuffle=shuffle)

    def webdataset(self, *, shuffle: int = 0, seed: int = 0) -> WebPipeline:
        """The samples as a webdataset pipeline: `__key__`, `jpg`, `json` (SA-1B's record), `txt`; all bytes.

        Shared out among workers and ranks; `state_dict` and `load_state_dict` go on within an epoch.

        Args:
            shuffle: samples that wait to be drawn from, beside shards in another order; 0 keeps the order.
            seed: of the order; each epoch has another.

        Raises:
            ValueError: a negative `shuffle`.
        """
        from maskmill.web_samples import WebPipeline, WebSamples

        return WebPipeline(WebSamples(self, shuffle=shuffle, seed=seed))


def open(
    root: str | os.PathLike[str],
    *,
    generation: int | str | None = None,
    column: str = "masks",
    prefer: str = PEOPLE,
) -> Dataset:
    """A dataset to read.

    Args:
        root: a folder or s3://bucket/prefix, as `maskmill generate` made it.
        generation: a number or tag; the latest by default.
        column: that has the masks; imported ones have another.
        prefer: "people": their masks where a picture was reviewed, automatic ones elsewhere; "automatic":
            these alone. It has no say over another column than "masks".

    Raises:
        ValueError: another preference.
        DatasetError: there is no generation there, or it has no masks; names the cure.
        ObjectNotFound: no generation of this number; says which there are.
    """
    check_choice("prefer", prefer, PREFERENCES)
    store = open_store(root)
    found = find_generation(store, generation)
    mask_rows(store, found, column, people=prefer == PEOPLE)
    return Dataset(found, column, prefer)
