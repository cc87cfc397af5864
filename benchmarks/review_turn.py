"""A whole turn with people in it, by a script at the page in headless Chromium:

    generate -> 12 pictures reviewed in the page -> retrain -> gate -> relabel -> export with people's masks

    python -m benchmarks.review_turn FOLDER --out DIR [--images 24] [--reviewed 12] [--most 12] [--steps 40]

FOLDER has images/, instances_pool.json and instances_val.json (COCO), as `benchmarks.nuclei` takes it. The
person sees by the pool's truth (reviewer.py) and does what docs/browse.md says, on pictures with the fewest
objects. The gate measures on a third of val. Prints a line a step, with what came of it; screenshots are in
DIR/shots. `--without-ray` works the shards in this process, where a machine is too busy for Ray to start.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.loop_parts import part_of, pool_folder
from benchmarks.reviewer import Reviewer, Tally, truths_of
from maskmill.flows.config import RunConfig, load_config
from maskmill.flows.runs import export, generate, relabel
from maskmill.flows.runs.improve import retrain, review
from maskmill.flows.runs.steps.annotating import Annotated
from maskmill.storage.dataset.records import new_attempt
from maskmill.storage.dataset.tags import find_generation
from maskmill.storage.drivers.shard_feed import ShardFeed
from maskmill.storage.stores.open import open_store
from maskmill.workers.page.session import Session
from maskmill.workers.run.spec import RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import build_stages
from tests.flows.browsing import chromium
from tests.workers.page.in_browser import Hand, serving_session


def main() -> None:
    """Reads the command line, and takes the turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="images/, instances_pool.json, instances_val.json")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--reviewed", type=int, default=12)
    parser.add_argument("--most", type=int, default=12, help="masks decided on and added in a picture, each")
    parser.add_argument("--steps", type=int, default=40, help="of training")
    parser.add_argument("--without-ray", action="store_true")
    asked = parser.parse_args()
    if asked.without_ray:
        for runs in (generate, relabel):
            vars(runs)["annotate_shards"] = in_this_process
    images, pool = asked.folder / "images", fewest(asked.folder / "instances_pool.json", asked)
    gate = part_of(asked.folder / "instances_val.json", asked.out / "gate.json", lambda i: i % 3 == 0)
    sets = [
        f"retrain.steps={asked.steps}", "retrain.masks=8", "retrain.points=1", "retrain.bare_rounds=1",
        "retrain.batch=4", "retrain.lr=2e-4", "retrain.weight_decay=0.05", "evaluate.measures=points",
        "evaluate.clicks=1", "masks.points_per_side=32", "masks.min_area_px=10", "run.shard_size=8",
        "embeddings.keep=float16", "export.format=coco",
    ]  # fmt: skip
    config, dataset = load_config("nano", sets=sets), str(asked.out / "dataset")

    inputs = [str(pool_folder(pool, images, asked.out / "pool.txt"))]
    made = generate.generate(dataset, inputs, config)
    told("generate", generation=made.generation, images=made.images, masks=made.masks)
    told("review", **reviewed(dataset, config, json.loads(pool.read_text()), asked))
    told("publish", **review.review(dataset, None, config))
    done = retrain.retrain(dataset, config, gate=(gate, images), promote=True)
    told("retrain", model=done.card.number, generation=done.generation, gate=dict(done.decision or {}))
    again = relabel.relabel(dataset, config)
    told("relabel", generation=again.generation, shards=again.done_shards, because=again.reasons)
    out = export.export_generation(dataset, None, config.export, str(asked.out / "export"))
    of_people = {"images": out.num_reviewed_images, "masks": out.num_reviewed_masks}
    told("export", images=out.num_images, masks=out.num_masks, of_people=of_people)


def told(step: str, **facts: Any) -> None:
    """What came of a step, as a line of JSON."""
    print(json.dumps({"step": step, "at": time.strftime("%H:%M:%S"), **facts}, default=str), flush=True)


def fewest(coco: Path, asked: argparse.Namespace) -> Path:
    """Annotations of the pictures with the fewest objects, at least one each."""
    data = json.loads(coco.read_text())
    count = Counter(row["image_id"] for row in data["annotations"])
    order = sorted((count[image["id"]], i) for i, image in enumerate(data["images"]) if count[image["id"]])
    keep = {i for _, i in order[: asked.images]}
    return part_of(coco, asked.out / "pool.json", lambda i: i in keep)


def reviewed(
    dataset: str, config: RunConfig, coco: Mapping[str, Any], asked: argparse.Namespace
) -> dict[str, Any]:
    """Pictures reviewed in the page; how much, how fast, and what the console said."""
    store = open_store(dataset)
    session = Session(store, find_generation(store), person="a new person", segmenter=config.segmenter)
    size = {image["file_name"]: (image["height"], image["width"]) for image in coco["images"]}
    with serving_session(session) as server:
        browser = chromium("--disable-gpu", "--window-size=1400,1000")
        try:
            hand = Hand(browser, server.address)
            reviewer = Reviewer(hand, truths_of(coco, size), most=asked.most, shots=asked.out / "shots")
            for _ in reviewer.work(asked.reviewed):
                pass
            return {**facts_of(reviewer.tally), "console": hand.complaints()}
        finally:
            browser.quit()


def facts_of(tally: Tally) -> dict[str, Any]:
    """A tally with what follows from it."""
    next_s = sorted(tally.next_s)
    return {
        **{name: value for name, value in asdict(tally).items() if name != "next_s"},
        "seconds": round(tally.seconds, 1),
        "seconds_a_mask": round(tally.seconds / max(1, tally.masks), 2),
        "next_picture_s_median": round(next_s[len(next_s) // 2], 2) if next_s else None,
    }


def in_this_process(
    spec: RunSpec, config: RunConfig, feed: Mapping[int, int] | ShardFeed, *, build: Any = None
) -> Annotated:
    """The very turns at shards, without Ray's workers around them."""
    stages, shards = (build or build_stages)(spec), feed if isinstance(feed, ShardFeed) else ShardFeed(feed)
    while not shards.ended:
        if (shard := shards.next()) is not None:
            run_shard(stages, ShardTask(shard=shard, attempt=new_attempt()))
    return Annotated(new_images=sum(shards.shards.values()))


if __name__ == "__main__":
    main()
