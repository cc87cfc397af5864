"""The page in a real browser: click to mask, and how a picture with very many masks opens and pans.

    python -m benchmarks.browse_page                     nano, then ViT-B; 1500x2250, 1,000 masks
    python -m benchmarks.browse_page --models nano --clicks 100

Headless Chromium with software rendering, server and browser on the same machine. A click is timed in the
page from the pointer's handler to the frame that shows the mask; frames are requestAnimationFrame's while the
picture is dragged; the next picture from the key that finishes one to the frame that shows the next,
`--nexts` times. Embeddings are as kept, so that no encoder is in the path: nano's own of the picture, and for
ViT-B, whose weights are random here, a smooth random one. Its masks are areas with the outlines of its
logits, since its up-convolutions are made to repeat a pixel: of plain random weights masks would be dots
everywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything.build_sam import sam_model_registry
from selenium.webdriver.common.keys import Keys

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.rle import area_px, box_xyxy, encode_mask, place
from maskmill.pipeline.segmenters import load_segmenter
from maskmill.pipeline.segmenters.base import ImageEmbedding
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.storage.dataset.generations import Generation, publish
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.page.answers import Answers
from maskmill.workers.page.session import Session
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.masks.grid import GridMasks
from tests.flows.browsing import chromium
from tests.workers.page.in_browser import Hand, serving_session

KEY = "000000001"
MODELS = ("nano", "vit_b")
CLICK = """
const [x, y, done] = arguments, { drawing } = maskmill;
drawing.drop();
const began = performance.now(), event = { shiftKey: false, button: 0 };
drawing.up([x, y], event);
const look = () => drawing.draft && drawing.draft.segmentation
  ? requestAnimationFrame(() => done(performance.now() - began)) : setTimeout(look, 1);
look();
"""
NEXT = """
const [done] = arguments, key = document.body.dataset.ready, began = performance.now();
document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", shiftKey: true, bubbles: true }));
const look = () => document.body.dataset.ready && document.body.dataset.ready !== key
  ? requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began)))
  : setTimeout(look, 1);
look();
"""
PAN = """
const [seconds, done] = arguments, { view } = maskmill, frames = [];
let last = performance.now(), began = last;
const frame = (now) => {
  frames.push(now - last);
  last = now;
  view.pan(Math.round(6 * Math.sin(now / 200)), 4 * Math.sign(Math.sin(now / 700)));
  now - began < 1000 * seconds ? requestAnimationFrame(frame) : done(frames.slice(2));
};
requestAnimationFrame(frame);
"""


def main() -> None:
    """Makes pictures, measures, prints a JSON document for each model."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--size", default="1500x2250", metavar="WIDTHxHEIGHT")
    parser.add_argument("--masks", type=int, default=1000)
    parser.add_argument("--clicks", type=int, default=60)
    parser.add_argument("--nexts", type=int, default=12, help="pictures that are gone to")
    asked = parser.parse_args()
    width, height = (int(side) for side in asked.size.split("x"))
    facts = {"size": asked.size, "masks": asked.masks, "cpus": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        for model in asked.models:  # a dataset each: what one finishes is not the other's next
            place = Path(folder) / model
            store, generation = make_dataset(place, width, height, asked.masks, 1 + asked.nexts)
            session = Session(store, generation, person=model, segmenter=SegmenterSettings(model="nano"))
            session.answers.close()
            session.answers = answers_of(model, width, height)
            with serving_session(session) as server:
                browser = chromium("--disable-gpu", "--window-size=1400,1000")
                try:
                    hand = Hand(browser, server.address)
                    found = measure(hand, width, height, asked.clicks, asked.nexts)
                finally:
                    browser.quit()
            told = {"model": model, **facts, "load": round(os.getloadavg()[0], 1), **found}
            print(json.dumps(told, indent=1), flush=True)


class Kept:
    """One embedding for every picture, as a dataset keeps it; see `answers.Pictures`."""

    def __init__(self, embedding: ImageEmbedding) -> None:
        self._embedding = embedding

    def pixels(self, key: str) -> NDArray[np.uint8]:
        """Asked for by nobody: every picture has an embedding."""
        raise AssertionError(f"the embedding of {key} is kept")

    def kept(self, key: str) -> ImageEmbedding | None:
        """The one."""
        return self._embedding


def answers_of(model: str, width: int, height: int) -> Answers:
    """A segmenter behind the page, on kept embeddings."""
    if model == "nano":
        nano = load_segmenter(SegmenterSettings(model="nano", device="cpu"))
        (embedding,) = nano.embed([_photograph("coffee", width, height)])
        return Answers(lambda: nano, Kept(embedding))

    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"]()
    with torch.no_grad():
        for layer in sam.mask_decoder.output_upscaling:
            if isinstance(layer, torch.nn.ConvTranspose2d):
                layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    vit = SamSegmenter(sam, device="cpu")
    coarse = torch.randn(1, 256, 6, 6, generator=torch.Generator().manual_seed(0))
    features = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic")[0]
    scale = vit.image_size / max(width, height)
    return Answers(
        lambda: vit,
        Kept(ImageEmbedding(features, height, width, round(height * scale), round(width * scale))),
    )


def measure(hand: Hand, width: int, height: int, clicks: int, nexts: int) -> dict[str, Any]:
    """Opening, panning, clicks, and the next pictures."""
    browser = hand.browser
    browser.set_script_timeout(100)
    hand.go("browse")
    time.sleep(2)
    opened_ms = _opened_ms(hand, f"picture/{KEY}", KEY)
    frames = sorted(browser.execute_async_script(PAN, 4))

    _opened_ms(hand, f"review/{KEY}", KEY)
    hand.keys("c")
    rng = np.random.default_rng(0)
    points = rng.uniform((0, 0), (width, height), (clicks + 1, 2)).tolist()
    first_ms, *rest = [float(browser.execute_async_script(CLICK, x, y)) for x, y in points]
    next_ms = sorted(_next_ms(hand) for _ in range(nexts))
    hand.keys("c")
    next_click_ms = float(browser.execute_async_script(CLICK, width / 2, height / 2))
    rest.sort()
    return {
        "open_ms": round(opened_ms),
        "frames_a_second_median": round(1000 / statistics.median(frames), 1),
        "frames_a_second_5th_percentile": round(1000 / frames[int(0.95 * len(frames))], 1),
        "first_click_ms": round(first_ms),
        "click_ms_p50": round(statistics.median(rest), 1),
        "click_ms_p95": round(rest[int(0.95 * len(rest))], 1),
        "next_picture_ms_p50": round(statistics.median(next_ms)),
        "next_picture_ms_worst": round(next_ms[-1]),
        "next_pictures_first_click_ms": round(next_click_ms, 1),
    }


def _next_ms(hand: Hand) -> float:
    """From the key that finishes a picture to the frame that shows the next, after a while on this one."""
    hand.keys(Keys.ESCAPE)
    time.sleep(1.5)
    return float(hand.browser.execute_async_script(NEXT))


def _opened_ms(hand: Hand, path: str, key: str) -> float:
    """From the address to the picture with its masks on the screen."""
    code = (
        "const [path, key, done] = arguments, began = performance.now(); delete document.body.dataset.ready; "
        "location.hash = '#/' + path; const look = () => document.body.dataset.ready === key "
        "? requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began))) "
        ": setTimeout(look, 2); look();"
    )
    return float(hand.browser.execute_async_script(code, path, key))


def make_dataset(
    folder: Path, width: int, height: int, num_masks: int, pictures: int
) -> tuple[ObjectStore, Generation]:
    """Photographs of a size, with so many ellipses for masks."""
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    for number in range(pictures):
        pixels = np.roll(_photograph(("coffee", "astronaut")[number % 2], width, height), 97 * number, axis=1)
        Image.fromarray(pixels).save(inputs / f"{number:03d}.jpg", quality=92)
    spec = RunSpec(root=str(folder / "data"), fingerprints={IMAGES: "0" * 16, MASKS: "1" * 16})
    store = open_store(spec.root)
    make_plan(store, [str(inputs)], shard_size=pictures)
    masks = _ellipses(width, height, num_masks)
    stage = GridMasks(lambda images: [masks for _ in images], fingerprint="1" * 16, models={})
    run_shard(Stages(spec, store, load_plans(store), (stage,)), ShardTask(shard=0, attempt="0" * 16))
    created = "2026-11-27T00:00:00+00:00"
    return store, publish(store, spec.fingerprints, settings={}, models={}, totals={}, created_utc=created)


def _photograph(name: str, width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(getattr(skimage.data, name)()).resize((width, height)))


def _ellipses(width: int, height: int, count: int) -> AnnotatedImage:
    """Ellipses of many sizes with wavy outlines."""
    rng = np.random.default_rng(1)
    annotations = []
    for _ in range(count):
        across, down = np.clip(rng.lognormal(4.0, 0.7, 2), 6, min(width, height) // 2 - 1).astype(int)
        x, y = rng.uniform((0, 0), (width - 2 * across, height - 2 * down)).astype(int)
        y_H1, x_1W = np.ogrid[-1 : 1 : 1j * (2 * down), -1 : 1 : 1j * (2 * across)]
        small_HW = x_1W**2 + y_H1**2 <= 0.9 + 0.1 * np.sin(x_1W * across / 3)
        mask = place(encode_mask(small_HW), x=int(x), y=int(y), height=height, width=width)
        left, top, right, bottom = (float(side) for side in box_xyxy(mask))
        annotations.append(
            Annotation(
                segmentation=mask,
                bbox_xywh=(left, top, right - left, bottom - top),
                area_px=area_px(mask),
                predicted_iou=0.9,
                stability_score=0.97,
                crop_box_xywh=(0.0, 0.0, float(width), float(height)),
                point_xy=((float(x), float(y)),),
                output_token=0,
            )
        )
    return AnnotatedImage(width, height, tuple(annotations))


if __name__ == "__main__":
    main()
