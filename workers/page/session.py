"""What a server browses: a generation, the searches that are open in it, and what people made of it.

It does not know: the web (app.py).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from maskmill.storage.browse.catalogue import Catalogue
from maskmill.storage.browse.filters import SORTS, Filters, Need, needs_of, order_of
from maskmill.storage.browse.search import FoundPicture, Search
from maskmill.storage.clock import now_utc
from maskmill.storage.dataset.generations import list_generations
from maskmill.storage.dataset.picture_sets import PictureSet, save_set, set_numbers
from maskmill.storage.dataset.tags import find_generation, tags
from maskmill.storage.errors import InputError
from maskmill.storage.plan.plan import identity
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.page.answers import Answers
from maskmill.workers.page.people import People
from maskmill.workers.page.reviewing import Reviewing
from maskmill.workers.page.shown import Shown
from maskmill.workers.reading.survey import shown_column
from maskmill.workers.reading.word_rows import rows_for
from maskmill.workers.run import dataset_models as models

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from maskmill.pipeline.segmenters.base import ImageEmbedding
    from maskmill.pipeline.settings import SegmenterSettings
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.reading.kept_embeddings import KeptEmbeddings

MOST_SEARCHES = 6
CHOOSING_S = 120.0


class Session:
    """A generation in the browser. Safe to share between threads; `close` ends it.

    Args:
        store: the dataset.
        generation: what is browsed.
        person: who reviews, until a page says otherwise.
        segmenter: answers clicks, where no model of the dataset is in force.
        order: of review, of `SORTS`.
        column: that has the masks; None takes `masks`, or the first other one with masks.

    Raises:
        DatasetError: the generation has no such column.
        InputError: there is no such order.
    """

    def __init__(
        self,
        store: ObjectStore,
        generation: Generation,
        *,
        person: str,
        segmenter: SegmenterSettings,
        column: str | None = None,
        order: str = "key",
    ) -> None:
        order_of(order)
        self.store, self.generation, self.person, self.order = store, generation, person, order
        self.people = People(store)
        self._column, self.identity = column, identity(store)
        self.catalogue = self._catalogue(generation)
        self.shown = Shown(self.catalogue, self.people.newest)
        self._earlier = lru_cache(maxsize=2)(self._opened)
        self.answers = Answers(
            lambda: models.load(models.in_force(store, segmenter)), _Pictures(self, segmenter)
        )
        self.reviewing = Reviewing(self)
        self._searches: OrderedDict[tuple[Filters, object, frozenset[Need]], Search] = OrderedDict()
        self._lock = threading.Lock()

    def _catalogue(self, generation: Generation) -> Catalogue:
        return Catalogue(
            self.store,
            generation,
            rows_for=rows_for,
            column=self._column or _column_of(generation),
            makers=self.people.makers,
            differences=self._differences,
            copies=self._copies,
        )

    def shown_in(self, number: int) -> Shown:
        """The pictures of a generation, which a page may have opened before this server was started.

        Raises:
            StorageError: there is no such generation.
        """
        return self.shown if number == self.generation.number else self._earlier(number)

    def _opened(self, number: int) -> Shown:
        generation = find_generation(self.store, number)
        return Shown(self._catalogue(generation), self.people.newest)

    def about(self) -> dict[str, Any]:
        """What the page says of the dataset."""
        generation = self.generation
        return {
            "root": self.store.root,
            "identity": self.identity,
            "generation": generation.number,
            "created_utc": generation.created_utc,
            "made_by": generation.made_by,
            "images": self.catalogue.num_images,
            "shards": len(self.catalogue.shards),
            "totals": dict(generation.totals),
            "columns": list(self.catalogue.columns),
            "column": self.catalogue.column,
            "models": dict(generation.models),
            "rejects": self._rejects,
            "sorts": list(SORTS),
            "generations": [one for one in list_generations(self.store) if one != generation.number],
            "tags": {name: tag.generation for name, tag in tags(self.store).items()},
            "sets": list(set_numbers(self.store)),
            "person": self.person,
            "order": self.order,
        }

    @cached_property
    def _rejects(self) -> dict[str, int]:
        return self.catalogue.reject_reasons()

    def pictures(self, filters: Filters, sort: str, *, seed: int, offset: int, limit: int) -> dict[str, Any]:
        """A page of a search. Raises InputError, StorageError."""
        page = self.search(filters, sort).page(sort, offset, limit, seed=seed)
        return {
            "pictures": [self._pictured(one) for one in page.pictures],
            "found": page.found,
            "searched": page.searched,
            "complete": page.complete,
        }

    def _pictured(self, one: FoundPicture) -> dict[str, Any]:
        """A picture of a page, with its name and what people made of it."""
        save = self.people.newest(one.key)
        state = None if save is None else "reviewed" if save.finished else "begun"
        source = self.catalogue.planned(one.key).label
        masks = one.masks if save is None else len(save.annotations)
        return {**asdict(one), "masks": masks, "source": source, "review": state}

    def search(self, filters: Filters, sort: str = "key") -> Search:
        """The search of some filters, begun if it is not open; the ones asked least lately are closed.

        Args:
            filters: what is looked for.
            sort: the order that it will be asked for; another may need another search.

        Raises:
            InputError: no such order.
            NoSuchThing: filters name a generation or a set of pictures that isn't there.
        """
        needs = needs_of(sort)
        old: list[Search] = []
        as_of: object = tuple(self.people.numbers().items()) if filters.made_by else ()
        if filters.chosen:
            as_of = (as_of, set_numbers(self.store).get(filters.chosen))
        with self._lock:
            search = self._searches.pop((filters, as_of, needs), None)
            search = search or Search(self.catalogue, filters, needs)
            self._searches[filters, as_of, needs] = search
            while len(self._searches) > MOST_SEARCHES:
                old.append(self._searches.popitem(last=False)[1])
        for one in old:
            one.close()
        return search

    def choose(self, name: str, filters: Filters, who: str) -> PictureSet:
        """Keeps the pictures that a search finds as a set; waits for the whole search.

        Raises:
            InputError: the name cannot be a set's, nothing is found, or the search takes too long.
            StorageError: the search fails, or the set cannot be kept.
        """
        search = self.search(filters)
        keys = search.keys("key", wait_s=CHOOSING_S)
        if not search.page("key", 0, 1).complete:
            raise InputError(
                f"the search has not ended after {CHOOSING_S:g} s: wait until the page says how many there "
                "are, or narrow it"
            )
        said = ", ".join(
            f"{field}={value}" for field, value in vars(filters).items() if value not in ("", None)
        )
        return save_set(
            self.store,
            PictureSet(
                name=name,
                keys=tuple(keys),
                generation=self.generation.number,
                said=said,
                who=who,
                created_utc=now_utc(),
            ),
        )

    def _differences(self, before: Generation, shards: Sequence[int]) -> Iterator[tuple[str, int, int, int]]:
        from maskmill.workers.measure.compare import changed_pictures

        column = self.catalogue.column
        found = changed_pictures(self.store, before, self.generation, column=column, shards=shards)
        return ((one.key, one.added, one.removed, one.changed) for one in found)

    def _copies(self) -> Iterator[str]:
        """Near-duplicates beyond the first of each, by the hashes that are stored: no picture is read."""
        from maskmill.workers.reading.near_duplicates import find_duplicates, known_pictures

        found = find_duplicates(known_pictures(self.store, self.generation, decode=False))
        return (key for group in found.groups for key in group[1:])

    def close(self) -> None:
        """Ends what runs."""
        with self._lock:
            searches = list(self._searches.values())
            self._searches.clear()
        for search in searches:
            search.close()
        self.answers.close()


class _Pictures:
    """What a decoder is asked about: pictures as they are shown, and embeddings where some are kept."""

    def __init__(self, session: Session, segmenter: SegmenterSettings) -> None:
        self._session, self._segmenter = session, segmenter

    def pixels(self, key: str) -> NDArray[np.uint8]:
        """See answers.Pictures."""
        return decode_image(self._session.shown.jpeg(key))

    def kept(self, key: str) -> ImageEmbedding | None:
        """See answers.Pictures."""
        return self._kept.get(key)

    @cached_property
    def _kept(self) -> KeptEmbeddings:
        from maskmill.workers.reading.kept_embeddings import KeptEmbeddings

        store = self._session.store
        settings = models.in_force(store, self._segmenter)
        return KeptEmbeddings(store, self._session.generation, settings)


def _column_of(generation: Generation) -> str | None:
    """The column with masks; None where there is none: `ingest` with embeddings has pictures alone."""
    name = shown_column(generation, None)
    return name if name in generation.columns else None
