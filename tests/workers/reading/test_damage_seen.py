"""One byte of a stored tar changed: whoever reads of it says the same sentence, though it stops early."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.flows.report.catalog import show_image
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.join import read_row
from maskmill.storage.errors import DamagedObject
from maskmill.workers.reading.survey import sample_images
from tests.workers.published import publish_dataset


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_every_reader_of_a_changed_tar_says_so(tmp_path: Path, place: float) -> None:
    data = publish_dataset(tmp_path)
    row = next(row for row in data.generation.rows() if row.column == "masks")
    key = next(sample.key for sample in read_row(data.store, row))
    stored = bytearray(data.store.read(row.data.name))
    stored[int(len(stored) * place)] ^= 1
    data.store.put(row.data.name, bytes(stored))

    told = []
    for read in (
        lambda: sample_images(data.store, data.generation, 100),
        lambda: show_image(data.store.root, key),
    ):
        with pytest.raises(DamagedObject, match=row.data.name) as error:
            read()
        told.append(str(error.value))
    assert told[0] == told[1]
    assert any(row.data.name in problem for problem in verify(data.store, deep=True).problems)
