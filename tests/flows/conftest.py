"""What the tests of flows/ share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workers.published import Published, publish_dataset


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """A dataset of ten images in three shards, nine annotated; tests must not change it."""
    return publish_dataset(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="session")
def nano_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of nano's shape, untrained: what is written matters here, not how good it is."""
    import torch

    from maskmill.pipeline.segmenters.student import StudentConfig, build_student, save_student

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "nano.safetensors"
    save_student(build_student(StudentConfig()), StudentConfig(), path)
    return path
