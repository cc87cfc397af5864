"""What an import says beyond its masks' pixels: categories and crowd flags, and how its file calls pictures.

Imported records keep the file's words under `original`; here those that other formats have a place for are
put into the SA-1B record: `label` (the category's name), `category_id` and `iscrowd`. A category that the
file doesn't list is called by its id; of two of one name the later is told apart by its id. Exports of other
masks of the same pictures (`ids_of`) take the file's image entries and category ids, so that both can be held
against each other.

What it doesn't know: which format can hold what; that is each format's own affair, and its to count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maskmill.storage.errors import NoSuchThing
from maskmill.storage.plan.plan import load_plans
from maskmill.workers.foreign.annotations import Id
from maskmill.workers.foreign.coco import id_of
from maskmill.workers.reading.samples import read_annotated

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore

CROWD = "crowd"
"""Why a mask is left out by formats that have objects alone."""


def head_of(generation: Generation, column: str) -> dict[str, Any]:
    """What an imported column's file says beside images and annotations; of one of our own nothing."""
    head = _import_of(generation, column)
    return dict(head) if isinstance(head, Mapping) else {}


def given_categories(generation: Generation, column: str) -> dict[Id, str]:
    """The categories that an imported column's file lists, by id: numbers in order, then words.

    Args:
        generation: that has the column.
        column: its name; one of our own has none.
    """
    listed = head_of(generation, column).get("categories")
    names: dict[Id, str] = {}
    for one in listed if isinstance(listed, list) else ():
        id_ = id_of(one.get("id")) if isinstance(one, Mapping) else None
        if id_ is not None:
            names[id_] = str(id_ if one.get("name") is None else one["name"])

    told: dict[Id, str] = {}
    for id_ in sorted(names, key=lambda id_: (isinstance(id_, str), id_)):
        name = names[id_]
        told[id_] = f"{name} ({id_})" if name in told.values() else name
    return told


def words_of(original: Mapping[str, Any], categories: Mapping[Id, str]) -> dict[str, Any]:
    """What a record's annotation gains by the words it came in.

    Args:
        original: the annotation as its file had it.
        categories: names by id.
    """
    found: dict[str, Any] = {}
    category = id_of(original.get("category_id"))
    label = original.get("label")
    if category is not None:
        found |= {"label": str(category), "category_id": category}
    if category is not None and category in categories:
        found["label"] = categories[category]
    elif isinstance(label, str) and label:
        found["label"] = label
    if "iscrowd" in original:
        found["iscrowd"] = int(bool(original["iscrowd"]))
    return found


def is_crowd(annotation: Mapping[str, Any]) -> bool:
    """Whether a mask outlines many objects as one."""
    return bool(annotation.get("iscrowd"))


class KeptEntries:
    """An import's image entries, for exports of other masks of its pictures; a shard in memory at a time.

    Args:
        store: the dataset.
        generation: that has the import.
        column: of the import.

    Raises:
        NoSuchThing: the generation has no such import; says which it has.
    """

    def __init__(self, store: ObjectStore, generation: Generation, column: str) -> None:
        imports = [name for name in generation.columns if isinstance(_import_of(generation, name), Mapping)]
        if column not in imports:
            told = f"it has {', '.join(sorted(imports))}" if imports else "it has none"
            raise NoSuchThing(
                f"{store.root}: generation {generation.number} has no import {column!r} whose ids could be "
                f"kept; {told} (`maskmill import` makes one)"
            )
        self._store, self._generation, self._column = store, generation, column
        self._plan = load_plans(store)
        self._shard, self._words = -1, dict[str, Mapping[str, Any]]()
        self._most: int | None = None

    def put_in(self, entry: Mapping[str, Any], key: str, *, names: bool) -> dict[str, Any]:
        """A picture's COCO entry as the import's file has it; its size is that of the masks.

        Args:
            entry: ours. A picture that the file doesn't name keeps it, with an id beyond all of the file's.
            key: of the picture.
            names: take the file's name and all else it says; False takes the id alone.
        """
        words = self._words_of(key)
        id_ = None if words is None else id_of(words.get("id", words.get("image_id")))
        if words is None or id_ is None:
            return {**entry, "id": self._most_id() + int(entry["id"])}
        told = {name: value for name, value in words.items() if name != "image_id"} if names else {}
        return {**entry, **told, "id": id_, "width": entry["width"], "height": entry["height"]}

    def id_of(self, key: str, fallback: int) -> Id:
        """A picture's id in the import's file.

        Args:
            key: of the picture.
            fallback: our id; one that the file doesn't name has it beyond all of the file's.
        """
        found: Id = self.put_in({"id": fallback, "width": 0, "height": 0}, key, names=False)["id"]
        return found

    def name_of(self, key: str) -> str | None:
        """A picture's name in the import's file, where it has one."""
        name = (self._words_of(key) or {}).get("file_name")
        return name if isinstance(name, str) else None

    def _words_of(self, key: str) -> Mapping[str, Any] | None:
        shard = self._plan.shard_of(key)
        if shard != self._shard:
            self._shard, self._words = shard, dict(self._read([shard]))
        return self._words.get(key)

    def _most_id(self) -> int:
        if self._most is None:
            shards = sorted(row.shard for row in self._generation.rows() if row.column == self._column)
            ids = (id_of(words.get("id", words.get("image_id"))) for _, words in self._read(shards))
            self._most = max((id_ for id_ in ids if isinstance(id_, int)), default=0)
        return self._most

    def _read(self, shards: Sequence[int]) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for sample in read_annotated(
            self._store, self._generation, shards=shards, pictures=False, column=self._column
        ):
            words = sample.record["image"].get("original")
            if isinstance(words, Mapping):
                yield sample.key, words


def _import_of(generation: Generation, column: str) -> object:
    """What a generation's settings say of an import; of a column of ours they have no `head`."""
    given = generation.settings.get(column)
    return given.get("head") if isinstance(given, Mapping) else None
