"""A generation as one self-contained HTML page: photographs under their masks, scores, counts, rejects.

The page asks nothing of the network and runs no script: its content policy forbids both, pictures are data
URIs, masks are SVG paths, switches are checkboxes and CSS. Whatever came from outside (file names, captions,
reasons, settings) is data and is escaped where it is written.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from maskmill.storage.plan.plan import load_plans
from maskmill.workers.pictures.histograms import Histogram, count, svg
from maskmill.workers.pictures.mask_paths import UNITS_PER_PX, mask_path
from maskmill.workers.pictures.render import label_map, mask_colours
from maskmill.workers.pictures.style import CSS, LOGO
from maskmill.workers.reading.survey import (
    MaskSurvey,
    SampledImage,
    count_rejects,
    sample_images,
    shown_column,
    survey_masks,
)

if TYPE_CHECKING:
    from maskmill.storage.dataset.generations import Generation
    from maskmill.storage.stores.base import ObjectStore

LONGEST_SIDE_PX = 720
JPEG_QUALITY = 82
UNEXPLAINED_RGB = (255, 92, 0)


@dataclass(frozen=True, kw_only=True)
class PreviewData:
    """All that a page shows.

    Attributes:
        title: of the page and its heading.
        root: the dataset's root.
        generation: its number.
        facts: small print: name -> value, such as settings and fingerprints.
        num_images: images with masks in the whole generation.
        num_masks: in the whole generation.
        rejects: reason -> count, of the whole generation and of the inputs that never got into a plan.
        survey: masks measured, from some or all of the shards.
        images: the photographs to show.
    """

    title: str
    root: str
    generation: int
    num_images: int
    num_masks: int
    rejects: Mapping[str, int]
    survey: MaskSurvey
    images: tuple[SampledImage, ...]
    facts: Mapping[str, str] = field(default_factory=dict)


def preview_page(
    store: ObjectStore,
    generation: Generation,
    *,
    num_images: int = 24,
    seed: int = 0,
    title: str = "maskmill",
    column: str | None = None,
) -> str:
    """The page of a generation.

    Args:
        store: the dataset.
        generation: one of its generations.
        num_images: photographs to show, spread over the dataset.
        seed: draws which.
        title: of the page.
        column: that has the masks; None is the automatic ones, people's in place of them where they are, or
            whatever there is where there are none.

    Returns:
        An HTML document of about 100 KB a photograph.

    Raises:
        maskmill.storage.errors.DatasetError: the generation holds no masks.
        maskmill.storage.errors.DamagedObject: a shard that is read is not what was written.
    """
    column = shown_column(generation, column)
    totals = survey_masks(store, generation, seed=seed, column=column)
    return render_page(
        PreviewData(
            title=title,
            root=store.root,
            generation=generation.number,
            num_images=totals.num_images,
            num_masks=totals.num_masks,
            rejects=Counter(count_rejects(store, generation)) + Counter(load_plans(store).rejects_by_reason),
            survey=totals,
            images=tuple(sample_images(store, generation, num_images, seed=seed, column=column)),
            facts=_facts(generation),
        )
    )


def render_page(data: PreviewData) -> str:
    """The page of given data; reads nothing."""
    body = "".join(
        (
            _header(data),
            _tiles(data),
            _gallery(data.images),
            _charts(data.survey),
            _image_table(data.images),
            _rejects(data),
            _small_print(data.facts),
        )
    )

    # Nothing is loaded and nothing runs: the page is safe to send
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{_text(data.title)}: generation {data.generation}</title><style>{CSS}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def _text(value: object) -> str:
    """Any value as text that is safe between tags and inside quoted attributes."""
    return html.escape(str(value), quote=True)


def _header(data: PreviewData) -> str:
    return (
        f"<header>{LOGO}<div><h1>{_text(data.title)}</h1>"
        f"<p>Generation <b>{data.generation}</b> of <code>{_text(data.root)}</code></p></div></header>"
    )


def _tiles(data: PreviewData) -> str:
    rejected = sum(data.rejects.values())
    per_image = data.num_masks / data.num_images if data.num_images else 0.0
    tiles = (
        ("Images", f"{data.num_images:,}", "with an annotation record"),
        ("Masks", f"{data.num_masks:,}", "in all"),
        ("Masks an image", f"{per_image:,.1f}", "on average"),
        ("Rejected", f"{rejected:,}", f"{_share(rejected, rejected + data.num_images)} of those read"),
    )
    cells = "".join(f"<div><dt>{n}</dt><dd>{v}</dd><small>{s}</small></div>" for n, v, s in tiles)
    return f'<dl class="tiles">{cells}</dl>'


def _gallery(images: tuple[SampledImage, ...]) -> str:
    if not images:
        return ""
    cards = "".join(_card(image, number) for number, image in enumerate(images))
    is_judged = any(image.unexplained_RC is not None for image in images)
    return (
        '<section class="gallery"><input type="checkbox" id="fills" checked>'
        '<input type="checkbox" id="lines" checked>'
        f'{_OPEN_SWITCH if is_judged else ""}<div class="bar-top"><h2>Images</h2>'
        '<div class="switches"><label for="fills">Masks</label><label for="lines">Outlines</label>'
        f"{_OPEN_LABEL if is_judged else ''}</div>"
        '</div><p class="hint">A sample, spread over the dataset. Point at a mask for its scores; click a '
        f"photograph to see it bare.{_OPEN_LEGEND if is_judged else ''}</p>"
        f'<div class="cards">{cards}</div></section>'
    )


_OPEN_SWITCH = '<input type="checkbox" id="open">'
_OPEN_LABEL = '<label for="open">Unexplained</label>'
_OPEN_LEGEND = (
    ' <span class="legend">Unexplained, by the verifier: explained <i></i> something without a mask</span>'
)


def _unexplained(sample: SampledImage) -> str:
    """Where something may lie without a mask, as a picture over the photograph: the surer, the denser."""
    if sample.unexplained_RC is None:
        return ""
    rgba_RC4 = np.empty((*sample.unexplained_RC.shape, 4), np.uint8)
    rgba_RC4[..., :3] = UNEXPLAINED_RGB
    rgba_RC4[..., 3] = (sample.unexplained_RC * 255).round()
    buffer = io.BytesIO()
    Image.fromarray(rgba_RC4).save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img class="open" alt="" src="data:image/png;base64,{data}">'


def _card(sample: SampledImage, number: int) -> str:
    height, width = sample.image_HW3.shape[:2]
    scale = min(1.0, LONGEST_SIDE_PX / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(sample.image_HW3).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    caption = f'<p class="caption">{_text(sample.caption)}</p>' if sample.caption else ""
    masks = len(sample.annotated.annotations)
    return (
        f'<figure><input type="checkbox" id="bare{number}"><label for="bare{number}" class="stage" '
        f'style="aspect-ratio:{size[0]}/{size[1]}"><img alt="" width="{size[0]}" height="{size[1]}" '
        f'src="{_jpeg_uri(picture)}">{_unexplained(sample)}{_overlay(sample, size, scale)}</label>'
        f'<figcaption><b title="{_text(sample.source)}">{_text(_short(sample.source))}</b>'
        f"<span>{masks:,} {_plural(masks, 'mask')}</span></figcaption>{caption}</figure>"
    )


def _overlay(sample: SampledImage, size: tuple[int, int], scale: float) -> str:
    annotated = sample.annotated
    order = sorted(range(len(annotated.annotations)), key=lambda i: -annotated.annotations[i].area_px)
    colours = mask_colours(len(annotated.annotations))
    paths = []
    for i in order:
        annotation = annotated.annotations[i]
        path = mask_path(annotation, scale)
        if not path:
            continue
        tip = (
            f"IoU {annotation.predicted_iou:.3f} · stability {annotation.stability_score:.3f} · "
            f"{annotation.area_px:,} px"
        )
        called = f"{sample.words[i]} · " if i < len(sample.words) and sample.words[i] else ""
        colour = colours[i].tobytes().hex()
        paths.append(f'<path color="#{colour}" d="{path}"><title>{_text(called + tip)}</title></path>')
    view = f"0 0 {size[0] * UNITS_PER_PX} {size[1] * UNITS_PER_PX}"
    return f'<svg viewBox="{view}" preserveAspectRatio="none">{"".join(paths)}</svg>'


def _jpeg_uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _charts(survey: MaskSurvey) -> str:
    heading = "Masks, measured"
    if survey.predicted_iou.size == 0:
        return _section(heading, "This generation holds no masks.", "")
    num_masks = f"{survey.predicted_iou.size:,} masks"
    scope = f"All {num_masks}."
    if survey.num_shards_read < survey.num_shards:
        scope = f"{num_masks} of {survey.num_shards_read:,} shards, spread over {survey.num_shards:,}."
    charts = "".join(
        f"<figure><figcaption>{_text(chart.title)}</figcaption>{svg(chart)}</figure>"
        for chart in histograms(survey)
    )
    return _section(heading, scope, f'<div class="charts">{charts}</div>')


def _section(heading: str, hint: str, content: str) -> str:
    note = f'<p class="hint">{hint}</p>' if hint else ""
    return f"<section><h2>{heading}</h2>{note}{content}</section>"


def histograms(survey: MaskSurvey) -> tuple[Histogram, ...]:
    """Predicted IoU, stability, area and masks an image, as the page shows them."""
    area_edges = [10 ** (0.25 * i) for i in range(4, 28)]
    area_ticks = [(10.0, "10"), (1e2, "100"), (1e3, "1k"), (1e4, "10k"), (1e5, "100k"), (1e6, "1M px")]
    most = max(20, int(np.ceil(np.max(survey.masks_per_image, initial=0) / 20)) * 20)
    per_image_ticks = [(0.0, "0"), (most / 2, f"{most // 2}"), (float(most), f"{most}")]
    return (
        _score_histogram("Predicted IoU", survey.predicted_iou),
        _score_histogram("Stability score", survey.stability),
        count("Area", survey.area_px, area_edges, area_ticks, unit="masks", show=lambda v: f"{v:,.0f} px"),
        count(
            "Masks an image",
            survey.masks_per_image,
            [most * i / 20 for i in range(21)],
            per_image_ticks,
            unit="images",
            show=lambda v: f"{v:,.0f}",
        ),
    )


def _score_histogram(title: str, values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Histogram:
    low = min(0.9, float(np.floor(np.min(values, initial=1.0) * 20) / 20))
    high = max(1.0, float(np.ceil(np.max(values, initial=0.0) * 20) / 20))
    edges = [float(edge) for edge in np.linspace(low, high, 25)]
    ticks = [(low, f"{low:.2f}"), ((low + high) / 2, f"{(low + high) / 2:.3g}"), (high, f"{high:.2f}")]
    return count(title, values, edges, ticks, unit="masks", show=lambda v: f"{v:.3f}")


def _image_table(images: tuple[SampledImage, ...]) -> str:
    if not images:
        return ""
    rows = "".join(_image_row(image) for image in images)
    names = ("Size", "Masks", "Covered", "Median IoU", "Median area")
    heads = "<th>Key</th><th>Source</th>" + "".join(f'<th class="n">{name}</th>' for name in names)
    table = f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    return _section("The sample in numbers", "", table)


def _image_row(sample: SampledImage) -> str:
    annotations = sample.annotated.annotations
    covered = float(np.mean(label_map(sample.annotated) > 0))
    iou = f"{np.median([a.predicted_iou for a in annotations]):.3f}" if annotations else "-"
    area = f"{np.median([a.area_px for a in annotations]):,.0f} px" if annotations else "-"
    size = f"{sample.annotated.width} x {sample.annotated.height}"
    numbers = (size, f"{len(annotations):,}", f"{covered:.0%}", iou, area)
    cells = "".join(f'<td class="n">{value}</td>' for value in numbers)
    return f"<tr><td><code>{_text(sample.key)}</code></td><td>{_text(sample.source)}</td>{cells}</tr>"


def _rejects(data: PreviewData) -> str:
    heading = "Rejected, by reason"
    total = sum(data.rejects.values())
    if total == 0:
        return _section(heading, "None: every image that was read has its record.", "")
    rows = "".join(
        f'<tr><td>{_text(reason)}</td><td class="n">{number:,}</td><td class="n">{_share(number, total)}</td>'
        f'<td class="meter"><i style="width:{100 * number / total:.1f}%"></i></td></tr>'
        for reason, number in sorted(data.rejects.items(), key=lambda item: (-item[1], item[0]))
    )
    heads = '<th>Reason</th><th class="n">Images</th><th class="n">Share</th><th></th>'
    table = f'<table class="narrow"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
    return _section(heading, "Every image is accounted for: annotated + rejected = read.", table)


def _small_print(facts: Mapping[str, str]) -> str:
    if not facts:
        return ""
    rows = "".join(
        f"<tr><th>{_text(name)}</th><td><code>{_text(value)}</code></td></tr>"
        for name, value in facts.items()
    )
    table = f'<table class="facts">{rows}</table>'
    return f"<section><details><summary>How it was made</summary>{table}</details></section>"


def _facts(generation: Generation) -> dict[str, str]:
    """Small print: what made the generation, as its manifest says."""
    facts = {"Published": generation.created_utc, "Parent": str(generation.parent or "none")}
    facts |= {f"{column} fingerprint": value for column, value in sorted(generation.columns.items())}
    facts |= {f"{role} model": name for role, name in sorted(generation.models.items())}
    settings = json.dumps(generation.settings, indent=1, sort_keys=True, ensure_ascii=False, default=str)
    return {**facts, "Settings": settings}


def _short(source: str) -> str:
    """The last part of a path or address, with the member's name for an image inside a tar."""
    return source.rstrip("/").rsplit("/", 1)[-1] or source


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0 %"


def _plural(number: int, word: str) -> str:
    return word if number == 1 else word + "s"
