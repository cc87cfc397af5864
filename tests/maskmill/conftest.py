"""What the tests of the library share."""

from __future__ import annotations

import pytest

from tests.storage.conftest import moto_endpoint, s3_bucket
from tests.workers.published import Published, publish_dataset

__all__ = ["moto_endpoint", "s3_bucket"]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A dataset of ten images in three shards, nine annotated; tests must not change it."""
    return publish_dataset(tmp_path_factory.mktemp("published"))
