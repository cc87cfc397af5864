"""Embeddings of a generation, one picture at a time: for whoever decodes prompts without an encoder.

    kept = KeptEmbeddings(store, generation, segmenter)     # the model whose decoder is to read them
    embedding = kept.get("000000042")                       # None where none of this model is kept

An embedding is good for the very model and number format that made it: those of another are never given.
Where a picture lies in its shard's tar is found by reading headers, once a shard; then a picture is one
ranged read. Safe to share between threads.

It doesn't know: how to make an embedding (workers/stages/embeddings.py).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, BinaryIO, cast

from maskmill.pipeline.decoder.kept import from_bytes
from maskmill.pipeline.settings.embeddings import FORMS
from maskmill.storage.errors import DamagedObject
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.shards.ranged import RangedFile
from maskmill.storage.shards.tars import TarMember, scan_tar
from maskmill.workers.run.columns import IMAGES
from maskmill.workers.stages.embeddings import EMBEDDINGS, ENDING, embedding_digits

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import ImageEmbedding
    from maskmill.pipeline.settings import SegmenterSettings
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.dataset.manifest import GenerationRow
    from maskmill.storage.stores.base import ObjectStore


class KeptEmbeddings:
    """See this file's header.

    Args:
        store: the dataset.
        generation: whose embeddings are read.
        segmenter: the model that is to decode them, resolved.

    Raises:
        WeightsError: the segmenter's weights are missing or damaged.
    """

    def __init__(self, store: ObjectStore, generation: Generation, segmenter: SegmenterSettings) -> None:
        self._store, self._plan = store, load_plans(store)
        rows = generation.rows()
        images = {row.shard: row.fingerprint for row in rows if row.column == IMAGES}
        wanted = (
            {
                digits: {embedding_digits(form, segmenter, digits) for form in FORMS}
                for digits in set(images.values())
            }
            if any(row.column == EMBEDDINGS for row in rows)
            else {}
        )
        self._rows: dict[int, GenerationRow] = {
            row.shard: row
            for row in rows
            if row.column == EMBEDDINGS and row.fingerprint in wanted[images[row.shard]]
        }
        self._places: dict[int, dict[str, TarMember]] = {}
        self._lock = threading.Lock()

    @property
    def shards(self) -> frozenset[int]:
        """Those that have embeddings of this model."""
        return frozenset(self._rows)

    def get(self, key: str) -> ImageEmbedding | None:
        """A picture's embedding, float32 on the CPU; None where none of this model is kept.

        Args:
            key: of the picture.

        Raises:
            DatasetError: no such picture is planned.
            DamagedObject: its bytes are no embedding.
            ObjectNotFound: the shard is gone.
        """
        shard = self._plan.shard_of(key)
        row = self._rows.get(shard)
        member = self._members(row).get(f"{key}.{ENDING}") if row is not None else None
        if row is None or member is None:
            return None
        data = self._store.read(row.data.name, member.offset, member.size_bytes)
        try:
            return from_bytes(data)
        except ValueError as exc:
            where = f"{self._store.root}/{row.data.name}: {key}"
            raise DamagedObject(f"{where} is no embedding ({exc}); run `maskmill verify --repair`") from exc

    def _members(self, row: GenerationRow) -> dict[str, TarMember]:
        """Where the pictures of a shard lie."""
        with self._lock:
            found = self._places.get(row.shard)
            if found is None:
                stream = cast(BinaryIO, RangedFile(self._store, row.data.name, row.data.size_bytes))
                scanned = scan_tar(stream, row.data.size_bytes)
                found = {one.name: one for one in scanned if isinstance(one, TarMember)}
                self._places[row.shard] = found
            return found
