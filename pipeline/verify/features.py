"""What a verifier sees of a mask, in numbers that mean the same for any model and picture size.

    scores     predicted IoU, stability, the output that gave it
    shape      box fill, aspect, outline against area, touching the picture's border
    company    overlap with the picture's other masks, parent, children; votes of suppressed neighbours
    embedding  the encoder's channels, each normed over the picture, pooled inside and in a ring outside: how
               well the two are told apart, place by place
    colours    the same over the colours of the mask's window, and whether edges lie on the outline, or within
               or beyond it

`refit` is the IoU of the mask with what lies nearer to its inside than to its outside. No feature is a
channel's own value, a size or a count of the picture's masks: a head that learns from scenes and
photographs is to hold for microscopy, and for another model's embedding. (With sizes, counts and contrasts:
the same order, worse calibration on nuclei; benchmarks/results/verifiers.md.) A part that isn't there (no
votes in old records, no embedding) is 0, with a flag.

Shape suffixes: N masks, S x S samples of a window (windows.py), G = S * S, D channels, E places of the
embedding, R x C cells (coverage.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.decoder.resize import resize
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.verify.bands import (
    CORE,
    MASK,
    OUTLINE,
    OUTSIDE,
    POOLED,
    Flags,
    line,
    of_colours,
    parts_of,
    samples_in,
    told_apart,
    weights_at,
)
from maskmill.pipeline.verify.coverage import CellGrid, Cover, Floats32
from maskmill.pipeline.verify.runs import Runs
from maskmill.pipeline.verify.windows import SIDE, Windows, colours_at, windows

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import ImageEmbedding

SCORES = ("predicted_iou", "stability", "scores_product", "output_0", "output_1", "output_2")
SHAPE = ("box_fill", "aspect", "outline", "touches")
COMPANY = ("overlap", "most_alike", "has_parent", "children", "rank")
VOTES = (
    "has_votes",
    "votes",
    "votes_iou",
    "near_share",
    "prompts",
    "inside_share",
    "own_outputs",
    "prompts_asked",
    "inside_asked",
)
EDGES = ("edge_ratio",)
FEATURES = (
    *SCORES,
    *SHAPE,
    *COMPANY,
    *VOTES,
    "has_embedding",
    *(f"embedding_{name}" for name in POOLED),
    "has_colours",
    *(f"colour_{name}" for name in POOLED),
    *EDGES,
)
"""In the order of `features`' columns."""

GROUPS = (
    VOTES,
    FEATURES[len(SCORES + SHAPE + COMPANY + VOTES) :][: 1 + len(POOLED)],
    FEATURES[-1 - len(POOLED + EDGES) :],
)
"""What may be unknown together; the first of each is its flag."""


def features(
    image: AnnotatedImage,
    *,
    pixels_HWC: Pixels | None = None,
    embedding: ImageEmbedding | None = None,
    cover: Cover | None = None,
) -> Floats32:
    """float32[N, len(FEATURES)].

    Args:
        image: N masks, with their votes where they were kept.
        pixels_HWC: of the picture, where they are at hand.
        embedding: of the whole picture, where it is at hand.
        cover: of these masks, where it is at hand.

    Raises:
        ValueError: damaged run lengths.
    """
    if not image.annotations:
        return np.zeros((0, len(FEATURES)), np.float32)
    cover = Cover.of(Runs.of(image)) if cover is None else cover
    where = windows(image, cover.runs)
    parts_NG = parts_of(where)
    flag = np.ones((len(image.annotations), 1), np.float32)
    parts = [_scores(image), _shape(image, parts_NG), _company(image, cover), _votes(image)]

    # The embedding's places, then the window's colours
    if embedding is None:
        parts.append(np.zeros((len(flag), 1 + len(POOLED)), np.float32))
    else:
        parts += [flag, _embedding(embedding, where, parts_NG)]
    if pixels_HWC is None:
        parts.append(np.zeros((len(flag), 1 + len(POOLED) + len(EDGES)), np.float32))
    else:
        colour_NG3 = colours_at(pixels_HWC, where).reshape(len(flag), SIDE * SIDE, 3)
        spread = max(float(pixels_HWC[::7, ::7].std()) / 255, 0.02)
        parts += [flag, of_colours(colour_NG3 / np.float32(spread), parts_NG)]
    found = np.concatenate(parts, axis=1).astype(np.float32)
    assert found.shape[1] == len(FEATURES), "the header's columns"
    return np.nan_to_num(found)


def _embedding(embedding: ImageEmbedding, where: Windows, parts_NG: Flags) -> Floats32:
    """float32[N, len(POOLED)]: pools over the embedding's places, told apart sample by sample.

    Channels are normed over the picture, after the pools: N numbers a channel instead of E.
    """
    features_DHW = embedding.features_CHW.detach().float().cpu()
    frame = embedding.frame
    rows = max(1, round(features_DHW.shape[1] * frame.input_height / frame.image_size))
    columns = max(1, round(features_DHW.shape[2] * frame.input_width / frame.image_size))
    value_DE = features_DHW[:, :rows, :columns].flatten(1)
    mean_D1 = value_DE.mean(1, keepdim=True)
    mean_D = mean_D1[:, 0]
    norm_D = 1 / (torch.linalg.vector_norm(value_DE - mean_D1, dim=1) / (value_DE.shape[1] - 1) ** 0.5 + 1e-4)

    # The place under each sample, and each part's weight at each place
    row_NS = np.clip(where.y_NS / embedding.height * rows, 0, rows - 1).astype(np.int64)
    column_NS = np.clip(where.x_NS / embedding.width * columns, 0, columns - 1).astype(np.int64)
    place_NG = (row_NS[:, :, None] * columns + column_NS[:, None, :]).reshape(len(row_NS), -1)
    weight_ANE = np.stack(
        [weights_at(parts_NG, part, place_NG, value_DE.shape[1]) for part in (CORE, OUTSIDE)]
    )
    weight = torch.from_numpy(weight_ANE).flatten(0, 1)
    count = weight.sum(1, keepdim=True)
    pooled = (weight @ value_DE.T / count.clamp(min=1e-6) - mean_D) * norm_D * (count > 0)
    inside_ND, outside_ND = pooled.view(2, len(row_NS), -1).numpy()

    # Where each place lies between the two
    scale_N, offset_N, toward_ND = line(inside_ND, outside_ND)
    toward = torch.from_numpy(toward_ND) * norm_D
    along_NE = (toward @ value_DE - (toward @ mean_D)[:, None]).numpy()
    along_NG = np.take_along_axis(along_NE, place_NG, axis=1)
    return told_apart((along_NG - offset_N[:, None]) / scale_N[:, None], parts_NG)


def picture_cells(pixels_HWC: Pixels, grid: CellGrid) -> Floats32:
    """float32[3, R, C]: the picture's mean colour in each cell, 0 to 1."""
    small_RC3 = resize(pixels_HWC, height=grid.rows, width=grid.columns, threads=1)
    return np.ascontiguousarray(small_RC3.transpose(2, 0, 1), np.float32) / np.float32(255)


def edge_strength(colour_3RC: Floats32) -> Floats32:
    """float32[R, C]: colour change from cell to cell, 1 on the picture's average."""
    padded = np.pad(colour_3RC, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength_RC = np.sqrt((across**2 + down**2).sum(axis=0))
    found: Floats32 = strength_RC / (strength_RC.mean() + np.float32(1e-4))
    return found


def _scores(image: AnnotatedImage) -> Floats32:
    rows = [
        (
            one.predicted_iou,
            one.stability_score,
            one.predicted_iou * one.stability_score,
            *(float(one.output_token == token) for token in range(3)),
        )
        for one in image.annotations
    ]
    return np.array(rows, np.float32)


def _shape(image: AnnotatedImage, parts_NG: Flags) -> Floats32:
    area_N = np.array([one.area_px for one in image.annotations], np.float32)
    box_N4 = np.array([one.bbox_xywh for one in image.annotations], np.float32)
    x, y, width, height = box_N4[:, 0], box_N4[:, 1], box_N4[:, 2] + 1, box_N4[:, 3] + 1
    touches_N = (x <= 1).astype(np.float32) + (y <= 1)
    touches_N += (x + width >= image.width - 1).astype(np.float32) + (y + height >= image.height - 1)
    outline_N = samples_in(parts_NG, OUTLINE) / 2
    columns = (
        area_N / (width * height),
        np.abs(np.log(width / height)),
        np.log(outline_N**2 / np.maximum(samples_in(parts_NG, MASK), 1) + 1e-3),
        touches_N,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def _company(image: AnnotatedImage, cover: Cover) -> Floats32:
    overlap_N, iou_N = cover.company()

    # Parents and children, and where its predicted IoU stands among the picture's
    parents = [one.parent for one in image.annotations]
    children_N = np.bincount([p for p in parents if p is not None], minlength=len(parents))
    iou = np.array([one.predicted_iou for one in image.annotations])
    rank_N = (iou[:, None] >= iou[None, :]).mean(axis=1)
    columns = (
        overlap_N,
        iou_N,
        np.array([p is not None for p in parents], np.float32),
        np.log1p(children_N),
        rank_N,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def _votes(image: AnnotatedImage) -> Floats32:
    votes = [one.votes for one in image.annotations]
    rows_NV = np.zeros((len(votes), len(VOTES)), np.float32)
    known = [place for place, one in enumerate(votes) if one is not None]
    if not known:
        return rows_NV
    told = [
        (one.count, one.iou_sum, one.near, one.prompts, one.inside, one.asked, one.own_outputs)
        for one in votes
        if one is not None
    ]
    count, iou_sum, near, prompts, inside, asked, own_outputs = np.array(told, np.float64).T
    columns = (
        np.ones(len(known)),
        np.log(count + 1),
        iou_sum / np.maximum(1, count),
        count / np.maximum(1, near),
        np.log(prompts + 1),
        count / np.maximum(1, inside),
        own_outputs,
        np.log((prompts + 1) / (asked + 1)),
        np.log((inside + 1) / (asked + 1)),
    )
    rows_NV[known] = np.stack(columns, axis=1)
    return rows_NV
