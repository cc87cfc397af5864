"""A small published dataset, and every editor's export of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.published import Published, publish_dataset
from tests.workers.tools.editors import FILES, exported


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """For tests that save nothing."""
    return publish_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def exports(published: Published, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every editor's export of it, by format."""
    folder = tmp_path_factory.mktemp("exports")
    for format in FILES:
        exported(published, folder / format, format)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Published:
    return publish_dataset(tmp_path)
