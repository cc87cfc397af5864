"""The page in a real browser, driven as a person drives it: pointer and keys alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from maskmill.pipeline.scenes.scenes import Scene, generate_scene
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.storage.dataset.generations import Generation, publish
from maskmill.storage.plan.make_plan import make_plan
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.page.serve import Server
from maskmill.workers.page.session import Session
from maskmill.workers.run.spec import ShardTask
from maskmill.workers.shard.turn import run_shard
from tests.flows.browsing import shown
from tests.workers.published import build_stages, make_spec

SCENE_SEEDS = (3, 4, 5)


def publish_scenes(folder: Path) -> tuple[ObjectStore, Generation, dict[str, Scene]]:
    """Generated scenes with a mask for each band of brightness; scenes by key."""
    inputs, spec = folder / "inputs", make_spec(folder / "dataset")
    inputs.mkdir(parents=True)
    scenes = {}
    for place, seed in enumerate(SCENE_SEEDS):
        scene = generate_scene(seed, 128)
        Image.fromarray(scene.image).save(inputs / f"{place}.jpg", quality=95)
        scenes[f"{place + 1:09d}"] = scene
    store = open_store(spec.root)
    shards = make_plan(store, [str(inputs)], shard_size=2).num_shards
    stages = build_stages(spec)
    for shard in range(shards):
        run_shard(stages, ShardTask(shard=shard, attempt=f"{shard:016d}"))
    created = "2025-01-01T00:00:00+00:00"
    generation = publish(store, spec.fingerprints, settings={}, models={}, totals={}, created_utc=created)
    return store, generation, scenes


@contextmanager
def serving(store: ObjectStore, generation: Generation) -> Iterator[tuple[Server, Session]]:
    """A server of a dataset, with nano behind it, in a thread."""
    session = Session(store, generation, person="ana", segmenter=SegmenterSettings(model="nano"))
    with serving_session(session) as server:
        yield server, session


@contextmanager
def serving_session(session: Session) -> Iterator[Server]:
    """The page's server, in a thread."""
    server = Server(session)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()


class Hand:
    """A person at a browser: points are pixels of the picture."""

    def __init__(self, browser: webdriver.Chrome, address: str) -> None:
        self.browser, self.address = browser, address

    def go(self, path: str) -> None:
        """Opens an address of the page, whole."""
        self.browser.get("about:blank")
        self.browser.get(f"{self.address}#/{path}")

    def ready(self, key: str) -> None:
        """Waits until a picture can be worked on."""
        shown(self.browser, lambda page: page.execute_script("return document.body.dataset.ready") == key)

    def review(self, key: str, query: str = "") -> None:
        """Opens a picture for review."""
        self.go(f"review/{key}{query}")
        self.ready(key)

    def js(self, code: str, *values: Any) -> Any:
        """What an expression is."""
        return self.browser.execute_script(f"return {code}", *values)

    def keys(self, *keys: str) -> None:
        """Pressed one after the other."""
        for key in keys:
            webdriver.ActionChains(self.browser).send_keys(key).perform()

    def shift(self, key: str) -> None:
        """A key with shift held."""
        chain = webdriver.ActionChains(self.browser)
        chain.key_down(Keys.SHIFT).send_keys(key).key_up(Keys.SHIFT).perform()

    def place(self, x: float, y: float) -> tuple[int, int]:
        """Where the middle of a pixel is on the screen."""
        left, top = self.js(
            "(() => { const v = maskmill.view, c = v.canvas.getBoundingClientRect(); "
            "return [c.x + v.left + arguments[0] * v.scale, c.y + v.top + arguments[1] * v.scale]; })"
            ".apply(null, arguments)",
            x + 0.5,
            y + 0.5,
        )
        return round(left), round(top)

    def click(self, x: float, y: float, *, shift: bool = False) -> None:
        """A click on a pixel."""
        self.drag([(x, y)], shift=shift)

    def drag(self, points: list[tuple[float, float]], *, shift: bool = False) -> None:
        """Down at the first pixel, over the others, up at the last."""
        if shift:
            webdriver.ActionChains(self.browser).key_down(Keys.SHIFT).perform()
        actions = ActionBuilder(self.browser, duration=0)
        pointer: Any = actions.pointer_action
        pointer.move_to_location(*self.place(*points[0])).pointer_down()
        for point in points[1:]:
            pointer.move_to_location(*self.place(*point))
        pointer.pointer_up()
        actions.perform()
        if shift:
            webdriver.ActionChains(self.browser).key_up(Keys.SHIFT).perform()

    def draft(self) -> dict[str, Any]:
        """What is being made, once the segmenter has answered."""
        found: dict[str, Any] = shown(
            self.browser,
            lambda page: page.execute_script(
                "const d = maskmill.drawing.draft; return d && !d.waiting && d.segmentation ? d : null"
            ),
        )
        return found

    def masks(self) -> list[dict[str, Any]]:
        """The masks there are: id, area, how, label."""
        found: list[dict[str, Any]] = self.js(
            "maskmill.work.masks.map(({id, area, how, label, drawn}) => ({id, area, how, label, drawn}))"
        )
        return found

    def saved(self) -> None:
        """Waits until all is kept."""
        shown(
            self.browser,
            lambda page: page.execute_script("return !maskmill.work.dirty && maskmill.work.sitting.last"),
        )

    def text(self, place: str = "side") -> str:
        """What is written in a part of the page."""
        return self.browser.find_element(By.ID, place).text

    def complaints(self) -> list[str]:
        """What the browser's console says, a refused script or a failed request among it."""
        console: Any = self.browser
        return [str(entry["message"]) for entry in console.get_log("browser")]


def inside(mask_HW: NDArray[np.bool_]) -> tuple[float, float]:
    """A pixel well inside a mask."""
    from maskmill.pipeline.train.prompts import centre_point

    x, y = centre_point(mask_HW)
    return float(x), float(y)
