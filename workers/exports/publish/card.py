"""The card of a published dataset: numbers, pictures, how to read it, where it comes from, on what terms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from maskmill.workers.exports.publish.numbers import Numbers
from maskmill.workers.exports.publish.settings import PublishSettings

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
    (1_000_000_000, "100M<n<1B"),
)
MAX_CATEGORIES = 20
UNKNOWN = "Not said. Ask the publisher before you use it."


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a dataset comes from.

    Attributes:
        generation, parent: numbers; None is no parent.
        created_utc: of the generation.
        models: name and sha256, by role.
        columns: fingerprint, by column.
        choices: what of the generation was taken.
        left_out: reason -> masks that weren't.
        rejects: reason -> images without masks.
    """

    generation: int
    parent: int | None
    created_utc: str
    models: Mapping[str, str]
    columns: Mapping[str, str]
    choices: Mapping[str, Any]
    left_out: Mapping[str, int]
    rejects: Mapping[str, int]


DESCRIPTION = (
    "Images with masks of what is in them, as Parquet: of each mask COCO's run lengths, its box, and how "
    "sure the model was."
)
"""Where the publisher says nothing of what it is."""


def card(
    repo: str, numbers: Numbers, lineage: Lineage, words: PublishSettings, pictures: Sequence[tuple[str, str]]
) -> bytes:
    """README.md, with the metadata that the hub reads at its head.

    Args:
        repo: owner/name.
        numbers: of the files.
        lineage: of the generation.
        words: what people say of it.
        pictures: title and path of each picture in the repository.
    """
    title = words.title or repo.rpartition("/")[2]
    parts = [
        _metadata(title, numbers, words),
        f"# {_plain(title)}",
        _plain(words.description) or DESCRIPTION,
        *(f"![{_plain(told)}]({path})" for told, path in pictures[:1]),
        "## In numbers",
        _table(_number_rows(numbers)),
        _categories(numbers),
        *(f"![{_plain(told)}]({path})" for told, path in pictures[1:]),
        "## Reading it",
        _reading(repo, numbers),
        "## Where it comes from",
        _plain(words.source),
        _table(_lineage_rows(lineage)),
        "## Licence, consent, contact",
        _table(_terms(words)),
        "## Citation\n\n" + _plain(words.citation) if words.citation else "",
    ]
    return ("\n\n".join(part for part in parts if part) + "\n").encode()


def _metadata(title: str, numbers: Numbers, words: PublishSettings) -> str:
    """YAML; JSON strings are YAML's."""
    splits = [name for name in ("train", "validation", "test") if numbers.images_by_split[name]]
    size = next((told for most, told in SIZES if numbers.images < most), "n>1B")
    lines = ["---", f"pretty_name: {json.dumps(title, ensure_ascii=False)}"]
    if words.license:
        lines.append(f"license: {json.dumps(words.license)}")
    if words.license_link:
        lines.append(f"license_link: {json.dumps(words.license_link)}")
    lines.append(f"language: {json.dumps(list(words.languages))}")
    lines.append("task_categories: [image-segmentation, mask-generation]")
    lines.append(f'size_categories: ["{size}"]')
    lines.append("tags: [maskmill, segment-anything, croissant]")
    lines += ["configs:", "- config_name: default", "  data_files:"]
    for split in splits or ["train"]:
        lines += [f"  - split: {split}", f"    path: data/{split}-*.parquet"]
    return "\n".join([*lines, "---"])


def _number_rows(numbers: Numbers) -> list[tuple[str, str]]:
    rows = [("images", f"{numbers.images:,}")]
    if len(numbers.images_by_split) > 1:
        rows += [(f"of them {name}", f"{count:,}") for name, count in numbers.images_by_split.items()]
    rows += [
        ("masks", f"{numbers.masks:,}"),
        ("masks per image", f"{numbers.masks_per_image:.1f}"),
        ("categories", f"{len(numbers.categories):,}"),
        ("images with a caption", f"{numbers.captions:,}"),
        ("mean size", f"{numbers.mean_width:.0f} x {numbers.mean_height:.0f} px"),
    ]
    return rows + ([("crowds", f"{numbers.crowds:,}")] if numbers.crowds else [])


def _categories(numbers: Numbers) -> str:
    if len(numbers.categories) < 2:
        return ""
    most = numbers.categories.most_common(MAX_CATEGORIES)
    more = len(numbers.categories) - len(most)
    told = ", ".join(f"{_plain(name)} ({count:,})" for name, count in most)
    return f"Categories by masks: {told}{f', and {more:,} more' if more else ''}."


def _reading(repo: str, numbers: Numbers) -> str:
    split = "train" if numbers.images_by_split["train"] else next(iter(numbers.images_by_split), "train")
    return f"""```python
import datasets
from pycocotools import mask

rows = datasets.load_dataset("{repo}", split="{split}")
row = rows[0]
row["image"]  # a PIL image
for one in row["masks"]:
    mask.decode({{"size": [row["height"], row["width"]], "counts": one["counts"]}})  # uint8[height, width]
```

`bbox` is x, y, w, h between inclusive corners, as in SA-1B; `category` is null without a word; `iscrowd`
marks many objects outlined as one; `extra` is JSON: labels, names, captions.
`croissant.json` is for machines."""


def _lineage_rows(lineage: Lineage) -> list[tuple[str, str]]:
    rows = [
        ("made by", f"maskmill {version('maskmill')}"),
        ("generation", f"{lineage.generation}, published {lineage.created_utc}"),
        ("made from", "nothing before it" if lineage.parent is None else f"generation {lineage.parent}"),
    ]
    rows += [(role, f"`{_plain(name)}`") for role, name in lineage.models.items()]
    rows += [(f"column {column}", f"`{digits}`") for column, digits in lineage.columns.items()]
    rows += [(f"taken: {name}", f"`{_plain(str(value))}`") for name, value in lineage.choices.items()]
    rows += [(f"masks left out: {why}", f"{count:,}") for why, count in lineage.left_out.items() if count]
    return rows + [
        (f"images left out: {why}", f"{count:,}") for why, count in lineage.rejects.items() if count
    ]


def _terms(words: PublishSettings) -> list[tuple[str, str]]:
    licence = words.license or UNKNOWN
    if words.license_link:
        licence = f"[{_plain(licence)}]({words.license_link})"
    return [
        ("licence", licence),
        ("consent", _plain(words.consent) or "Not said."),
        ("to have an image removed", _plain(words.contact) or "Not said: open a discussion."),
    ]


def _table(rows: Sequence[tuple[str, str]]) -> str:
    lines = ["| | |", "|---|---|"]
    return "\n".join([*lines, *(f"| {name} | {value.replace('|', '&#124;')} |" for name, value in rows)])


def _plain(text: str) -> str:
    """Words of people and files as words: no HTML, no break out of a cell."""
    return " ".join(text.split()).replace("<", "&lt;").replace("`", "'")
