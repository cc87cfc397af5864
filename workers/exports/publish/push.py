"""A generation as a dataset on the hub: Parquet, card, pictures, Croissant, in one commit.

How it works: the Parquet export goes to a staging folder (and goes on there after a stop); numbers and
pictures are made from its files, so that the card tells of what is published; then all of it is pushed
(hub.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskmill.storage.errors import InputError
from maskmill.storage.stores.hub import Pushed, page_of, push_folder, repo_of
from maskmill.workers.exports.export import export
from maskmill.workers.exports.formats import ExportChoices
from maskmill.workers.exports.publish import numbers as counting
from maskmill.workers.exports.publish import pictures
from maskmill.workers.exports.publish.card import Lineage, card
from maskmill.workers.exports.publish.croissant import croissant
from maskmill.workers.exports.report import ExportReport

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore
    from maskmill.workers.exports.publish.settings import PublishSettings

Step = Callable[[str, str], None]
Count = Callable[[int], None]

CARD, CROISSANT = "README.md", "croissant.json"


@dataclass(frozen=True)
class Staged:
    """What lies in a staging folder, ready to be pushed: names below it, and what is in it."""

    folder: Path
    names: tuple[str, ...]
    report: ExportReport
    numbers: counting.Numbers


def push(
    store: ObjectStore,
    generation: Generation,
    address: str,
    folder: Path,
    choices: ExportChoices,
    words: PublishSettings,
    *,
    private: bool = False,
    step: Step = lambda title, counts: None,
    count: Count = lambda done: None,
) -> tuple[Staged, Pushed]:
    """Publishes a generation.

    Args:
        store: the dataset.
        generation: of it.
        address: hf://owner/name.
        folder: for staging: new, empty, or one where the same was begun.
        choices: what of it; of the format "hf".
        words: what people say of it.
        private: of a repository that is made now.
        step, count: told what is done, and how much of it.

    Raises:
        InputError: an address that is none, or nothing to publish.
        ExportError: the staging folder holds something else.
        AccessDenied, StoreUnavailable: the hub refuses, or fails.
    """
    repo = repo_of(address)
    step(f"writing Parquet to {folder}", "image")
    staged = stage(store, generation, repo, folder, choices, words, count=count)
    step(f"pushing to {address}", "file")
    message = (
        f"Generation {generation.number}: {staged.numbers.images:,} images, {staged.numbers.masks:,} masks"
    )
    return staged, push_folder(folder, staged.names, repo, message=message, private=private, progress=count)


def stage(
    store: ObjectStore,
    generation: Generation,
    repo: str,
    folder: Path,
    choices: ExportChoices,
    words: PublishSettings,
    *,
    count: Count = lambda done: None,
) -> Staged:
    """Writes all files of a published dataset to a folder.

    Raises:
        InputError: nothing to publish.
        ExportError: the folder holds something else.
    """
    fields = {one.name: getattr(choices, one.name) for one in dataclasses.fields(choices)}
    report = export(store, generation, str(folder), progress=count, **fields)
    if not report.num_images:
        raise InputError(
            f"{store.root}: no image of generation {generation.number} is chosen: nothing to publish"
        )
    data = tuple(file.name for file in report.files)
    found = counting.count_files(folder, data)

    drawn = _pictures(folder, data, found)
    defaults = {one.name: one.default for one in dataclasses.fields(ExportChoices)}
    lineage = Lineage(
        generation=generation.number,
        parent=generation.parent,
        created_utc=generation.created_utc,
        models=dict(generation.models),
        columns=dict(generation.columns),
        choices={name: v for name, v in fields.items() if v and name != "format" and v != defaults[name]},
        left_out=report.left_out,
        rejects=report.rejects,
    )
    (folder / CARD).write_bytes(card(repo, found, lineage, words, drawn))
    splits = [name for name in ("train", "validation", "test") if found.images_by_split[name]]
    (folder / CROISSANT).write_bytes(
        croissant(
            repo,
            page_of(repo),
            splits,
            words,
            version=str(generation.number),
            published=generation.created_utc[:10],
        )
    )
    names = (*data, CARD, CROISSANT, *(path for _, path in drawn))
    return Staged(folder, names, report, found)


def _pictures(folder: Path, data: tuple[str, ...], found: counting.Numbers) -> list[tuple[str, str]]:
    """Draws the card's pictures; title and path of each."""
    (folder / "pictures").mkdir(exist_ok=True)
    ious = [f"{edge:.1f}" if place % 4 == 0 else "" for place, edge in enumerate(counting.IOU_EDGES[:-1])]
    drawn = {
        ("images with their masks", "samples.png"): pictures.samples(folder, data),
        ("masks per image", "masks_per_image.png"): pictures.bars(
            "Images by their number of masks",
            ["0", "1-4", "5-9", "10-19", "20-49", "50-99", "100-199", "200-499", "500+"],
            found.per_image.tolist(),
        ),
        ("size of masks", "mask_size.png"): pictures.bars(
            "Masks by their share of the image",
            ["<0.001 %", "<0.01 %", "<0.1 %", "<1 %", "<10 %", "more"],
            found.share.tolist(),
        ),
        ("predicted IoU", "predicted_iou.png"): pictures.bars(
            "Masks by predicted IoU", ious, found.iou.tolist()
        ),
    }
    told = []
    for (title, name), png in drawn.items():
        if png is not None:
            (folder / "pictures" / name).write_bytes(png)
            told.append((title, f"pictures/{name}"))
    return told
