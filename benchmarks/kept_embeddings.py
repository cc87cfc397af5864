"""What keeping embeddings in float16 or int8 does to masks, and what it saves.

    python -m benchmarks.kept_embeddings FOLDER --images 20

Of each picture: masks of the grid from the encoder's own embedding, and from it as it comes back from each
form; how many there are, how many have a partner of IoU above 0.95 in the other set, the mean IoU of
partners; bytes kept, milliseconds to encode, and to read back. Single clicks likewise: a grid of 8 x 8
points, the best of three masks.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from maskmill.flows.config import load_config
from maskmill.pipeline.decoder.kept import from_bytes, to_bytes
from maskmill.pipeline.evaluate.agreement import best_partners
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.rle import Rle
from maskmill.pipeline.segmenters import load_segmenter
from maskmill.pipeline.segmenters.base import ImageEmbedding, Prompts, Segmenter
from maskmill.pipeline.settings.embeddings import FORMS
from maskmill.workers.foreign.images.codec import decode_image
from maskmill.workers.stages.shared import SharedEmbeddings


def main(arguments: Sequence[str] | None = None) -> None:
    """Compares, and prints a line of JSON a form."""
    parser = argparse.ArgumentParser(prog="benchmarks.kept_embeddings")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--recipe", default="nano")
    parser.add_argument("--points", type=int, default=24, help="of the grid's side")
    options = parser.parse_args(arguments)
    config = load_config(options.recipe, sets=["segmenter.threads=1"])
    torch.set_num_threads(1)
    segmenter = load_segmenter(config.segmenter)
    masks = dataclasses.replace(config.masks, points_per_side=options.points)
    paths = sorted(options.folder.glob("*.jpg"))[: options.images]
    pictures = [decode_image(path.read_bytes()) for path in paths]

    # From the encoder itself
    fresh: list[tuple[ImageEmbedding, list[Rle], list[float]]] = []
    encode_s = 0.0
    for picture in pictures:
        began = time.perf_counter()
        (embedding,) = segmenter.embed([picture])
        encode_s += time.perf_counter() - began
        fresh.append((embedding, grid(segmenter, masks, picture, embedding), clicks(segmenter, embedding)))

    # From what is kept of it
    for form in FORMS:
        partners, shares, counts, ious = [], [], [0, 0], []
        size = read_s = 0.0
        for picture, (embedding, found, scores) in zip(pictures, fresh, strict=True):
            data = to_bytes(embedding, form)
            began = time.perf_counter()
            back = from_bytes(data)
            read_s += time.perf_counter() - began
            size += len(data)
            again = grid(segmenter, masks, picture, back)
            both = np.concatenate(best_partners(found, again))
            partners.append(both.mean() if len(both) else 1.0)
            shares.append((both > 0.95).mean() if len(both) else 1.0)
            counts = [counts[0] + len(found), counts[1] + len(again)]
            ious.append(np.abs(np.subtract(scores, clicks(segmenter, back))).mean())
        print(
            json.dumps(
                {
                    "form": form,
                    "images": len(pictures),
                    "masks fresh, kept": counts,
                    "mean partner IoU": round(float(np.mean(partners)), 4),
                    "share above 0.95": round(float(np.mean(shares)), 4),
                    "mean change of a click's predicted IoU": float(f"{np.mean(ious):.2g}"),
                    "KiB an image": round(size / len(pictures) / 1024),
                    "ms to encode": round(1e3 * encode_s / len(pictures), 1),
                    "ms to read back": round(1e3 * read_s / len(pictures), 2),
                }
            )
        )


def grid(segmenter: Segmenter, masks: object, picture: np.ndarray, embedding: ImageEmbedding) -> list[Rle]:
    """Automatic masks of a picture from a given embedding."""
    shared = SharedEmbeddings(segmenter)
    shared.keep(picture, embedding)
    (found,) = AutomaticMasks(shared, masks)([picture])  # type: ignore[arg-type]
    return [one.segmentation for one in found.annotations]


def clicks(segmenter: Segmenter, embedding: ImageEmbedding) -> list[float]:
    """The best predicted IoU of 64 single clicks."""
    xs, ys = np.meshgrid(
        (np.arange(8) + 0.5) * embedding.width / 8, (np.arange(8) + 0.5) * embedding.height / 8
    )
    points = np.stack([xs.ravel(), ys.ravel()], axis=1)[:, None, :]
    prompts = Prompts(points_PK2=points, labels_PK=np.ones((64, 1), np.int64))
    answer = segmenter.prompt(embedding).predict(prompts)
    return [float(one) for one in answer.predicted_iou_PM.max(dim=1).values]


if __name__ == "__main__":
    main()
