"""Exports to an S3 prefix are the same as to a folder."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from maskmill.storage.stores.open import open_store
from maskmill.workers.exports.export import export
from maskmill.workers.exports.report import ExportError
from tests.storage.conftest import moto_endpoint, s3_bucket  # noqa: F401 - fixtures
from tests.workers.published import NUM_ANNOTATED, publish_dataset


@pytest.mark.s3
def test_a_prefix_gets_what_a_folder_gets(s3_bucket: str, tmp_path: Path) -> None:  # noqa: F811
    data = publish_dataset(tmp_path / "published")
    local = export(data.store, data.generation, str(tmp_path / "out"), max_images=4)
    remote = export(data.store, data.generation, f"{s3_bucket}/exports/one", max_images=4)
    assert remote.files == local.files and remote.destination == f"{s3_bucket}/exports/one"
    store = open_store(f"{s3_bucket}/exports/one")
    assert [found.name for found in store.list()] == ["export.json", *(file.name for file in remote.files)]
    with tarfile.open(fileobj=io.BytesIO(store.read("sa_000000.tar"))) as tar:
        assert len(tar.getnames()) == 8
    assert export(data.store, data.generation, f"{s3_bucket}/exports/one", max_images=4).already_complete
    with pytest.raises(ExportError, match="holds another export"):
        export(data.store, data.generation, f"{s3_bucket}/exports/one", max_images=5)


@pytest.mark.s3
def test_coco_and_its_images_on_a_prefix(s3_bucket: str, tmp_path: Path) -> None:  # noqa: F811
    data = publish_dataset(tmp_path / "published")
    report = export(data.store, data.generation, f"{s3_bucket}/coco", format="coco")
    store = open_store(f"{s3_bucket}/coco")
    assert len(json.loads(store.read("annotations.json"))["annotations"]) == report.num_masks
    assert len(list(store.list("images/"))) == NUM_ANNOTATED
