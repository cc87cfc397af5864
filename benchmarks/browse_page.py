"""The page in a real browser: click to mask, and how a picture with very many masks opens and pans.

    python -m benchmarks.browse_page                     nano, 1500x2250, 1,000 masks
    python -m benchmarks.browse_page --model vit_b --weights sam_vit_b_01ec64.pth

Headless Chromium with software rendering, server and browser on the same machine. A click is timed in the
page from the pointer's handler to the frame that shows the mask; frames are requestAnimationFrame's while the
picture is dragged. The encoder is not in the path: its time is the first click's, told apart.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image
from selenium import webdriver

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.rle import area_px, box_xyxy, encode_mask, place
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.storage.dataset.generations import Generation, publish
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.plan.plan import load_plans
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.page.session import Session
from maskmill.workers.run.spec import IMAGES, MASKS, RunSpec, ShardTask
from maskmill.workers.shard.turn import run_shard
from maskmill.workers.stages.build import Stages
from maskmill.workers.stages.masks.grid import GridMasks
from tests.workers.page.in_browser import Hand, serving_session

KEY, NEXT = "000000001", "000000002"
CLICK = """
const [x, y, done] = arguments, { drawing } = maskmill;
drawing.drop();
const began = performance.now(), event = { shiftKey: false, button: 0 };
drawing.up([x, y], event);
const look = () => drawing.draft && drawing.draft.segmentation
  ? requestAnimationFrame(() => done(performance.now() - began)) : setTimeout(look, 1);
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
    """Makes two pictures, measures, prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--weights", default=None)
    parser.add_argument("--size", default="1500x2250", metavar="WIDTHxHEIGHT")
    parser.add_argument("--masks", type=int, default=1000)
    parser.add_argument("--clicks", type=int, default=40)
    asked = parser.parse_args()
    width, height = (int(side) for side in asked.size.split("x"))
    segmenter = SegmenterSettings(model=asked.model, weights=asked.weights)
    with tempfile.TemporaryDirectory() as folder:
        store, generation = make_dataset(Path(folder), width, height, asked.masks)
        session = Session(store, generation, person="nobody", segmenter=segmenter)
        with serving_session(session) as server:
            browser = _chromium()
            try:
                found = measure(Hand(browser, server.address), width, height, asked.clicks)
            finally:
                browser.quit()
    facts = {"model": asked.model, "size": asked.size, "masks": asked.masks, "cpus": os.cpu_count()}
    print(json.dumps({**facts, "load": os.getloadavg()[0], **found}, indent=1))


def measure(hand: Hand, width: int, height: int, clicks: int) -> dict[str, Any]:
    """Opening, panning, clicks, and the next picture."""
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
    time.sleep(3)  # the next picture is embedded ahead meanwhile
    next_ms = _opened_ms(hand, f"review/{NEXT}", NEXT)
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
        "next_picture_ms": round(next_ms),
        "next_pictures_first_click_ms": round(next_click_ms, 1),
    }


def _opened_ms(hand: Hand, path: str, key: str) -> float:
    """From the address to the picture with its masks on the screen."""
    code = (
        "const [path, key, done] = arguments, began = performance.now(); delete document.body.dataset.ready; "
        "location.hash = '#/' + path; const look = () => document.body.dataset.ready === key "
        "? requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - began))) "
        ": setTimeout(look, 2); look();"
    )
    return float(hand.browser.execute_async_script(code, path, key))


def make_dataset(folder: Path, width: int, height: int, num_masks: int) -> tuple[ObjectStore, Generation]:
    """Two photographs of a size, with so many ellipses for masks."""
    inputs = folder / "inputs"
    inputs.mkdir()
    for name in ("coffee", "astronaut"):
        pixels = getattr(skimage.data, name)()
        Image.fromarray(pixels).resize((width, height)).save(inputs / f"{name}.jpg", quality=92)
    spec = RunSpec(root=str(folder / "data"), fingerprints={IMAGES: "0" * 16, MASKS: "1" * 16})
    store = open_store(spec.root)
    make_plan(store, [str(inputs)], shard_size=2)
    stage = GridMasks(
        lambda images: [_ellipses(width, height, num_masks) for _ in images], fingerprint="1" * 16, models={}
    )
    run_shard(Stages(spec, store, load_plans(store), (stage,)), ShardTask(shard=0, attempt="0" * 16))
    created = "2026-11-27T00:00:00+00:00"
    return store, publish(store, spec.fingerprints, settings={}, models={}, totals={}, created_utc=created)


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


def _chromium() -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(word)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))


if __name__ == "__main__":
    main()
