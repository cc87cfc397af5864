"""Families with a decoder of their own: what loads them is what settings know."""

from __future__ import annotations

import transformers

from maskmill.pipeline.segmenters.family_decoders import PARTS
from maskmill.pipeline.settings.families import families_of


def test_every_family_that_settings_know_can_be_put_together() -> None:
    assert set(PARTS) == {one.name for one in families_of("segmenter") if one.decoder == "own"}
    for parts in PARTS.values():
        assert hasattr(transformers, parts.model)
        assert hasattr(transformers, parts.processor)
