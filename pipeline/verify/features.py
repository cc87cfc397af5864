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
from torch.nn import functional as F

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.decoder.resize import resize
from maskmill.pipeline.pixels import Pixels
from maskmill.pipeline.verify.coverage import CellGrid, Floats32, coverage
from maskmill.pipeline.verify.windows import SIDE, Windows, colours_at, windows

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import ImageEmbedding

POOLED = ("fisher", "told_inside", "told_outside", "outline_between", "refit")
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
) -> Floats32:
    """float32[N, len(FEATURES)].

    Args:
        image: N masks, with their votes where they were kept.
        pixels_HWC: of the picture, where they are at hand.
        embedding: of the whole picture, where it is at hand.

    Raises:
        ValueError: damaged run lengths.
    """
    if not image.annotations:
        return np.zeros((0, len(FEATURES)), np.float32)
    where = windows(image.annotations, height=image.height, width=image.width)
    bands = Bands(where)
    flag = np.ones((len(image.annotations), 1), np.float32)
    parts = [_scores(image), _shape(image, bands), _company(image), _votes(image)]

    # The embedding's places, then the window's colours
    if embedding is None:
        parts.append(np.zeros((len(flag), 1 + len(POOLED)), np.float32))
    else:
        parts += [flag, _embedding(embedding, where, bands)]
    if pixels_HWC is None:
        parts.append(np.zeros((len(flag), 1 + len(POOLED) + len(EDGES)), np.float32))
    else:
        colour_N3G = colours_at(pixels_HWC, where).reshape(len(flag), SIDE * SIDE, 3).transpose(0, 2, 1)
        spread = max(float(pixels_HWC[::7, ::7].std()) / 255, 0.02)
        parts += [flag, _statistics(colour_N3G / spread, bands), _edges(colour_N3G / spread, bands)]
    found = np.concatenate(parts, axis=1).astype(np.float32)
    assert found.shape[1] == len(FEATURES), "the header's columns"
    return np.nan_to_num(found)


class Bands:
    """Parts of each window, float32[N, G] of 0 and 1: core, within, outline, beyond, outside, mask."""

    def __init__(self, where: Windows) -> None:
        mask = torch.from_numpy(where.mask_NSS).float()[:, None]
        within = torch.from_numpy(where.within_NSS).float()[:, None]
        grown, shrunk = F.max_pool2d(mask, 3, 1, 1), -F.max_pool2d(-mask, 3, 1, 1)
        wide, deep = F.max_pool2d(mask, 5, 1, 2), -F.max_pool2d(-mask, 5, 1, 2)
        far = F.max_pool2d(mask, 11, 1, 5)
        self.mask_NG, self.within_NG = _flat(mask), _flat(within)
        self.outline_NG = _flat((grown - shrunk) * within)
        self.within_outline_NG, self.beyond_NG = _flat(shrunk - deep), _flat((wide - grown) * within)
        self.core_NG = _flat(torch.where(deep.sum((1, 2, 3), keepdim=True) > 4, deep, mask))
        self.outside_NG = _flat((far - grown) * within)
        self.around_NG = _flat(far * within)


def _flat(map_N1SS: torch.Tensor) -> Floats32:
    found: Floats32 = map_N1SS.flatten(1).numpy()
    return found


def _mean(value_NG: Floats32, weight_NG: Floats32) -> Floats32:
    """float32[N]; 0 where nothing weighs."""
    found: Floats32 = (value_NG * weight_NG).sum(axis=1) / np.maximum(weight_NG.sum(axis=1), 1e-6)
    return found


def _statistics(value_NDG: Floats32, bands: Bands) -> Floats32:
    """float32[N, len(POOLED)] of channels in each window."""
    inside_ND, outside_ND = (
        np.einsum("ndg,ng->nd", value_NDG, weight_NG) / np.maximum(weight_NG.sum(axis=1), 1e-6)[:, None]
        for weight_NG in (bands.core_NG, bands.outside_NG)
    )
    scale_N, offset_N, toward_ND = _line(inside_ND, outside_ND)
    along_NG = (np.einsum("nd,ndg->ng", toward_ND, value_NDG) - offset_N[:, None]) / scale_N[:, None]
    return _told_apart(along_NG, bands)


def _line(inside_ND: Floats32, outside_ND: Floats32) -> tuple[Floats32, Floats32, Floats32]:
    """From outside, 0, to inside, 1: a projection's divisor, what is taken off before, its direction."""
    toward_ND = inside_ND - outside_ND
    scale_N = (toward_ND**2).sum(axis=1) + np.float32(1e-3 * toward_ND.shape[1])
    return scale_N, (toward_ND * outside_ND).sum(axis=1), toward_ND


def _told_apart(along_NG: Floats32, bands: Bands) -> Floats32:
    """The columns of `POOLED`, from where each sample lies between outside and inside."""
    mean_in_N, mean_out_N = _mean(along_NG, bands.core_NG), _mean(along_NG, bands.outside_NG)
    var_in_N = _mean((along_NG - mean_in_N[:, None]) ** 2, bands.core_NG)
    var_out_N = _mean((along_NG - mean_out_N[:, None]) ** 2, bands.outside_NG)
    fisher_N = np.log1p((mean_in_N - mean_out_N) ** 2 / (var_in_N + var_out_N + 1e-3))

    # By its own colours or channels, what would the mask be?
    nearer_NG = (along_NG > 0.5) * bands.around_NG
    common_N = (nearer_NG * bands.mask_NG).sum(axis=1)
    refit_N = common_N / np.maximum((np.maximum(nearer_NG, bands.mask_NG)).sum(axis=1), 1)
    columns = (
        fisher_N,
        _mean((along_NG > 0.5).astype(np.float32), bands.mask_NG),
        _mean((along_NG < 0.5).astype(np.float32), bands.outside_NG),
        np.clip(_mean(along_NG, bands.outline_NG), -1, 2),
        refit_N,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def _embedding(embedding: ImageEmbedding, where: Windows, bands: Bands) -> Floats32:
    """float32[N, len(POOLED)]: pools over the embedding's places, told apart sample by sample."""
    features_DHW = embedding.features_CHW.detach().float().cpu()
    frame = embedding.frame
    rows = max(1, round(features_DHW.shape[1] * frame.input_height / frame.image_size))
    columns = max(1, round(features_DHW.shape[2] * frame.input_width / frame.image_size))
    value_DE = features_DHW[:, :rows, :columns].flatten(1)
    value_DE = (value_DE - value_DE.mean(1, keepdim=True)) / (value_DE.std(1, keepdim=True) + 1e-4)

    # The place under each sample, and each band's weight at each place
    row_NS = np.clip(where.y_NS / embedding.height * rows, 0, rows - 1).astype(np.int64)
    column_NS = np.clip(where.x_NS / embedding.width * columns, 0, columns - 1).astype(np.int64)
    place_NG = torch.from_numpy(
        (row_NS[:, :, None] * columns + column_NS[:, None, :]).reshape(len(row_NS), -1)
    )
    inside_ND, outside_ND = (
        _pooled(weight_NG, place_NG, value_DE) for weight_NG in (bands.core_NG, bands.outside_NG)
    )
    scale_N, offset_N, toward_ND = _line(inside_ND, outside_ND)
    along_NE = torch.from_numpy(toward_ND) @ value_DE
    along_NG = (along_NE.gather(1, place_NG).numpy() - offset_N[:, None]) / scale_N[:, None]
    return _told_apart(along_NG, bands)


def _pooled(weight_NG: Floats32, place_NG: torch.Tensor, value_DE: torch.Tensor) -> Floats32:
    """float32[N, D]: weighted means over places."""
    weight_NE = torch.zeros((len(weight_NG), value_DE.shape[1])).scatter_add_(
        1, place_NG, torch.from_numpy(weight_NG)
    )
    found: Floats32 = (weight_NE @ value_DE.T / weight_NE.sum(1, keepdim=True).clamp(min=1e-6)).numpy()
    return found


def _edges(colour_N3G: Floats32, bands: Bands) -> Floats32:
    """float32[N, 1]: the logarithm of how much stronger edges are on the outline than within or beyond it."""
    map_N3SS = np.ascontiguousarray(colour_N3G).reshape(-1, 3, SIDE, SIDE)
    padded = np.pad(map_N3SS, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    across, down = (
        padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2],
        padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1],
    )
    edge_NG = np.sqrt((across**2 + down**2).sum(axis=1)).reshape(len(map_N3SS), -1)
    parts = (bands.outline_NG, bands.within_outline_NG, bands.beyond_NG)
    outline_N, within_N, beyond_N = (np.log(_mean(edge_NG, weight_NG) + 3e-2) for weight_NG in parts)
    found: Floats32 = (outline_N - np.maximum(within_N, beyond_N))[:, None]
    return found


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


def _shape(image: AnnotatedImage, bands: Bands) -> Floats32:
    area_N = np.array([one.area_px for one in image.annotations], np.float32)
    box_N4 = np.array([one.bbox_xywh for one in image.annotations], np.float32)
    x, y, width, height = box_N4[:, 0], box_N4[:, 1], box_N4[:, 2] + 1, box_N4[:, 3] + 1
    touches_N = (x <= 1).astype(np.float32) + (y <= 1)
    touches_N += (x + width >= image.width - 1).astype(np.float32) + (y + height >= image.height - 1)
    outline_N = bands.outline_NG.sum(axis=1) / 2
    columns = (
        area_N / (width * height),
        np.abs(np.log(width / height)),
        np.log(outline_N**2 / np.maximum(bands.mask_NG.sum(axis=1), 1) + 1e-3),
        touches_N,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def _company(image: AnnotatedImage) -> Floats32:
    cells = CellGrid.of(image.height, image.width)
    cover_NRC = coverage([one.segmentation for one in image.annotations], cells)
    cover = torch.from_numpy(cover_NRC.reshape(len(cover_NRC), -1))
    common_NN = (cover @ cover.T).numpy()
    area_N = common_NN.diagonal().copy()
    union_NN = area_N[:, None] + area_N[None, :] - common_NN
    np.fill_diagonal(common_NN, 0)
    iou_N = (common_NN / np.maximum(union_NN, 1e-6)).max(axis=1)
    others = (cover.sum(0)[None, :] - cover).clamp(max=1)
    overlap_N = ((cover * others).sum(1) / cover.sum(1).clamp(min=1e-6)).numpy()

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
    rows = np.zeros((len(image.annotations), len(VOTES)), np.float32)
    for row, annotation in zip(rows, image.annotations, strict=True):
        one = annotation.votes
        if one is not None:
            row[:] = (
                1,
                np.log(one.count + 1),
                one.iou_sum / max(1, one.count),
                one.count / max(1, one.near),
                np.log(one.prompts + 1),
                one.count / max(1, one.inside),
                one.own_outputs,
                np.log((one.prompts + 1) / (one.asked + 1)),
                np.log((one.inside + 1) / (one.asked + 1)),
            )
    return rows
