"""How images are taken in: what a file of the allowed pixels can need."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from maskmill.workers.run.ingest_settings import IngestSettings


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff"])
def test_no_picture_of_the_allowed_pixels_is_too_large(ending: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, 500, 4), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, ending)
    assert len(data.getvalue()) < IngestSettings(max_pixels=400 * 500).max_bytes


def test_a_sparse_file_of_three_gib_is() -> None:
    assert IngestSettings().max_bytes < 3 << 30
