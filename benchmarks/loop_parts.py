"""What the loop's demonstrations share: ground truth on paper, datasets whose masks are the truth."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from maskmill.flows.config import RunConfig
from maskmill.flows.deployments.quick_start import run_generate
from maskmill.flows.runs.improve.evaluate import Question, measure
from maskmill.flows.runs.improve.review import review
from maskmill.pipeline.rle import encode_mask
from maskmill.pipeline.scenes.scenes import generate_scene
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.storage.stores.open import open_store
from maskmill.workers.foreign.truth import TruthSet
from maskmill.workers.run import dataset_models as models

Look = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


def plain(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture as it is."""
    return image


def shifted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another style: colours swapped and inverted, contrast lowered, and grain."""
    grain = np.random.default_rng(int(image[::16, ::16].sum())).normal(0, 9, image.shape)
    turned = 255 - image[..., [2, 0, 1]].astype(np.float64)
    return np.clip(60 + 0.55 * turned + grain, 0, 255).astype(np.uint8)


def grained(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another style: grain of 25."""
    grain = np.random.default_rng(int(image[::16, ::16].sum())).normal(0, 25, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def dimmed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another style: grey, contrast lowered to 0.3, grain of 20."""
    grain = np.random.default_rng(int(image[::16, ::16].sum())).normal(0, 20, image.shape)
    grey: NDArray[np.float64] = image.mean(axis=-1, keepdims=True)
    return np.clip(90 + 0.3 * grey + grain, 0, 255).astype(np.uint8)


def blurred(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Another style: out of focus, by a Gaussian of 2.5 px."""
    soft: NDArray[np.float64] = ndimage.gaussian_filter(image.astype(np.float64), (2.5, 2.5, 0))
    return np.clip(soft, 0, 255).astype(np.uint8)


LOOKS: dict[str, Look] = {"shifted": shifted, "grain": grained, "dim": dimmed, "blur": blurred}
"""Styles of scenes that nano never saw, by name."""


def write_scenes(folder: Path, seeds: Sequence[int], size_px: int, look: Look = plain) -> Path:
    """Scenes as PNG and their masks as COCO annotations; returns the annotations' file."""
    folder.mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        scene = generate_scene(seed, size_px)
        name = f"{seed}.png"
        Image.fromarray(look(scene.image)).save(folder / name)
        height, width = scene.image.shape[:2]
        images.append({"id": len(images) + 1, "file_name": name, "height": height, "width": width})
        for mask in scene.masks_NHW:
            shape = {
                "segmentation": encode_mask(mask).to_coco(),
                "area": int(mask.sum()),
                "bbox": [0, 0, 1, 1],
            }
            ids = {"id": len(rows) + 1, "image_id": len(images), "category_id": 1, "iscrowd": 0}
            rows.append({**ids, **shape})
    coco = folder.with_suffix(".json")
    coco.write_text(json.dumps({"images": images, "annotations": rows, "categories": [{"id": 1}]}))
    return coco


def part_of(coco: Path, target: Path, keep: Callable[[int], bool]) -> Path:
    """Annotations of those images whose place in the file `keep` takes."""
    data = json.loads(coco.read_text())
    data["images"] = [image for i, image in enumerate(data["images"]) if keep(i)]
    ids = {image["id"] for image in data["images"]}
    data["annotations"] = [row for row in data["annotations"] if row["image_id"] in ids]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(data))
    return target


def pool_folder(coco: Path, images: Path, target: Path) -> Path:
    """A manifest of the pictures that annotations list, as an input of `generate`."""
    names = [image["file_name"] for image in json.loads(coco.read_text())["images"]]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(f"{(images / name).resolve()}\n" for name in names))
    return target


def with_truth(dataset: str, inputs: list[str], truth: TruthSet, config: RunConfig) -> int:
    """Annotates, then puts the truth of every image into the review column; returns the generation."""
    run_generate(dataset, inputs, config)
    count = len(json.loads(truth.coco.read_text())["images"])
    by_hand = dataclasses.replace(config.loop, reviewed=count, review_mode="given")
    given = config.model_copy(update={"loop": by_hand})
    generation: int = review(dataset, (truth.coco, truth.images), given)["generation"]
    return generation


def figures(
    segmenter: SegmenterSettings, coco: Path, images: Path, config: RunConfig, dataset: str | None = None
) -> dict[str, float]:
    """A model's figures on a set, pictures of failures left out."""
    asked = dataclasses.replace(config.evaluate, failures=0)
    found = measure(segmenter, Question(coco=coco, images=images, dataset=dataset), asked)
    return {name: value for name, value in found.items() if isinstance(value, float)}


def of_model(dataset: str, number: int, segmenter: SegmenterSettings) -> SegmenterSettings:
    """A dataset's model as a segmenter."""
    from maskmill.storage.dataset.model_versions import load_model

    store = open_store(dataset)
    return models.of_card(store, load_model(store, number), segmenter)
