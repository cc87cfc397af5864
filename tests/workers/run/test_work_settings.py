"""How workers share a machine: what is left open follows the device, and changes no column."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskmill.workers.run.recipe import recipe_names, recipe_text, recipe_values
from maskmill.workers.run.spec import make_spec
from maskmill.workers.run.work_settings import BESIDE_CPU, BESIDE_GPU, Resolved, WorkSettings


def test_what_is_open_follows_the_device_and_what_is_said_stays() -> None:
    assert WorkSettings().on("cpu") == BESIDE_CPU
    assert WorkSettings().on("cuda") == WorkSettings().on("mps") == BESIDE_GPU
    said = WorkSettings(decode_threads=3, encode_threads=2, images_per_batch=5)
    assert (
        said.on("cpu") == said.on("cuda") == Resolved(decode_threads=3, encode_threads=2, images_per_batch=5)
    )
    assert BESIDE_CPU.images_per_batch == 1, "runs on a CPU stay equal byte for byte"


@pytest.mark.parametrize("field", ["decode_threads", "encode_threads", "images_per_batch"])
def test_a_value_out_of_range_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        WorkSettings(**{field: 0})


def test_no_column_is_another_by_it(tmp_path: Path) -> None:
    first = make_spec(str(tmp_path), work=WorkSettings())
    second = make_spec(str(tmp_path), work=WorkSettings(decode_threads=7, images_per_batch=9))
    assert first.fingerprints == second.fingerprints


@pytest.mark.parametrize("name", [name for name in recipe_names() if name != "nano"])
def test_what_a_recipe_says_of_number_formats_is_what_it_runs(name: str) -> None:
    """`fast` said bfloat16 in a comment and ran float32."""
    dtype = recipe_values(name)["segmenter"].get("dtype", "float32")
    words = [line for line in recipe_text(name).splitlines() if line.startswith("# Computes:")]
    assert words and words[0].startswith(f"# Computes: {dtype}")
    hardware = next(line for line in recipe_text(name).splitlines() if line.startswith("# Hardware:"))
    assert "bfloat16" not in hardware
