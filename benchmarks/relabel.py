"""What it costs to change thresholds: by the model, and by selecting from stored candidates.

    python -m benchmarks.relabel --images 8 --size 512

One process, one shard, no Ray: a shard is annotated without and with candidates kept, then annotated again
at a higher predicted IoU, once by the model and once from the candidates. The masks of both are compared.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

from maskmill.flows.config import load_config
from maskmill.storage.dataset.columns import ColumnVersion
from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.open import open_store
from maskmill.workers.jobs.demo_inputs import write_scenes
from maskmill.workers.run.spec import RunSpec, ShardTask, make_spec
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import build_stages


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--recipe", default="nano")
    parser.add_argument("--set", action="append", default=[], help="section.field=value")
    found = parser.parse_args()
    floors = ["masks.keep_candidates=true", "masks.candidate_iou=0.45", "masks.candidate_stability=0.2"]
    kept = load_config(found.recipe, sets=[*floors, *found.set])
    plain = dataclasses.replace(kept.masks, keep_candidates=False)
    higher = dataclasses.replace(kept.masks, predicted_iou=min(1.0, kept.masks.predicted_iou + 0.1))
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder, "inputs")
        write_scenes(inputs, count=found.images, seed=0, size_px=found.size)

        def spec_of(name: str, masks: object) -> RunSpec:
            root = str(Path(folder, name))
            make_plan(open_store(root), [str(inputs)], shard_size=found.images)
            return make_spec(root, ingest=kept.ingest, masks=masks, segmenter=kept.segmenter)

        run(spec_of("warm", plain))
        by_model = run(spec_of("plain", plain))
        keeping = run(spec_of("kept", kept.masks))
        again = run(spec_of("higher", dataclasses.replace(higher, keep_candidates=False)))
        selected = run(spec_of("kept", higher))
        same = samples(spec_of("higher", dataclasses.replace(higher, keep_candidates=False))) == samples(
            spec_of("kept", higher)
        )
        store = open_store(Path(folder, "kept"))
        size = sum(info.size_bytes for info in store.list("candidates/") if info.name.endswith(".tar"))
        masks = sum(info.size_bytes for info in store.list("masks/") if info.name.endswith(".tar"))
    each = 1 / found.images
    print(f"{found.images} images of {found.size} px, recipe {found.recipe}; seconds an image")
    print(f"  annotate                     {by_model * each:8.4f}")
    print(f"  annotate, candidates kept    {keeping * each:8.4f}")
    print(f"  higher threshold, by model   {again * each:8.4f}")
    print(f"  higher threshold, selected   {selected * each:8.4f}   {again / selected:.0f}x")
    print(
        f"  equal masks: {same}; kB an image: {size * each / 1e3:.0f} candidates, "
        f"{masks * each / 2e3:.0f} masks"
    )


def run(spec: RunSpec) -> float:
    """Makes what the spec's shard lacks; seconds, models loaded before."""
    store = open_store(spec.root)
    idle = tuple(c for c, d in spec.fingerprints.items() if ColumnVersion(store, c, d).committed())
    stages = build_stages(dataclasses.replace(spec, idle=idle))
    began = time.perf_counter()
    run_shard(stages, ShardTask(shard=0, attempt=new_attempt()))
    return time.perf_counter() - began


def samples(spec: RunSpec) -> list[object]:
    """The masks of a spec's shard."""
    version = ColumnVersion(open_store(spec.root), "masks", spec.fingerprints["masks"])
    return [sample for record in version.records() for sample in version.read(record)]


if __name__ == "__main__":
    main()
