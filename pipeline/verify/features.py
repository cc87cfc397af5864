"""What a verifier sees of a mask, in numbers that mean the same for any model and picture size.

    scores     predicted IoU, stability, the output that gave it
    shape      area, box fill, outline against area, touching the picture's border, islands of others in it
    company    overlap with the picture's other masks, parent, children; suppressed neighbours' votes (masks/votes.py)
    embedding  the encoder's channels, each normed over the picture, pooled inside, on the outline and in a ring
               outside: how far apart, how even inside, how well the two are told apart cell by cell
    colours    the same three pools over colours, and how strong edges are on the outline

No feature is a channel's own value: a head that learns from scenes and photographs is to hold for microscopy, and
for another model's embedding. A part that isn't there (no votes in old records, no embedding) is 0, with a flag.

Shape suffixes: N masks, R x C cells (coverage.py), G = R * C, D channels.
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

if TYPE_CHECKING:
    from maskmill.pipeline.segmenters.base import ImageEmbedding

POOLED = ("apart", "alike", "uneven", "fisher", "told_inside", "told_outside", "outline_between")
SCORES = ("predicted_iou", "stability", "scores_product", "output_0", "output_1", "output_2")
SHAPE = ("area", "small", "box_fill", "aspect", "outline", "touches", "solid")
COMPANY = ("overlap", "most_alike", "has_parent", "children", "masks", "rank", "mean_iou")
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
EDGES = ("edge_outline", "edge_inside", "edge_outside", "edge_ratio")
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
    """
    if not image.annotations:
        return np.zeros((0, len(FEATURES)), np.float32)
    grid = CellGrid.of(image.height, image.width)
    cover_NRC = coverage([one.segmentation for one in image.annotations], grid)
    pools = _Pools(cover_NRC)
    flag = np.ones((len(cover_NRC), 1), np.float32)
    parts = [_scores(image), _shape(image, pools), _company(image, pools), _votes(image)]

    # The embedding's cells, then the picture's
    if embedding is None:
        parts += [0 * flag, np.zeros((len(flag), len(POOLED)), np.float32)]
    else:
        parts += [flag, pools.statistics(embedding_cells(embedding, grid))]
    if pixels_HWC is None:
        parts += [0 * flag, np.zeros((len(flag), len(POOLED) + len(EDGES)), np.float32)]
    else:
        colour_3RC = picture_cells(pixels_HWC, grid)
        parts += [flag, pools.statistics(normed(colour_3RC)), _edges(edge_strength(colour_3RC), pools)]
    found = np.concatenate(parts, axis=1).astype(np.float32)
    assert found.shape[1] == len(FEATURES), "the header's columns"
    return np.nan_to_num(found)


class _Pools:
    """Where each mask is inside, outline and outside, as weights over cells that add up to 1."""

    def __init__(self, cover_NRC: Floats32) -> None:
        self.cover_NRC = cover_NRC
        cover = torch.from_numpy(cover_NRC)[:, None]
        grown = F.max_pool2d(cover, 3, 1, 1)
        shrunk = -F.max_pool2d(-cover, 3, 1, 1)
        wide = F.max_pool2d(cover, 7, 1, 3)
        self.outline_length_N = (grown - shrunk).sum((1, 2, 3)).numpy() / 2
        self.core_N = shrunk.sum((1, 2, 3)).numpy()
        self.inside_NG = _weights(torch.where(shrunk.sum((1, 2, 3), keepdim=True) > 2, shrunk, cover))
        self.outside_NG = _weights((wide - grown).clamp(min=0) * (1 - cover))
        self.outline_NG = _weights(grown - shrunk)

    def statistics(self, cell_DRC: Floats32) -> Floats32:
        """float32[N, len(POOLED)] of a map whose channels are normed."""
        cell_DG = cell_DRC.reshape(len(cell_DRC), -1)
        inside_ND, outside_ND, outline_ND = (
            weights_NG @ cell_DG.T for weights_NG in (self.inside_NG, self.outside_NG, self.outline_NG)
        )
        toward_ND = inside_ND - outside_ND
        square_G = (cell_DG**2).mean(axis=0)
        depth = len(cell_DG)

        # How far apart, how alike, how even inside
        apart_N = np.sqrt((toward_ND**2).mean(axis=1))
        alike_N = (inside_ND * outside_ND).sum(axis=1) / (
            np.linalg.norm(inside_ND, axis=1) * np.linalg.norm(outside_ND, axis=1) + 1e-6
        )
        uneven_N = np.sqrt(np.maximum(self.inside_NG @ square_G - (inside_ND**2).mean(axis=1), 0))

        # Along the line from outside to inside, 0 to 1: where cells and the outline lie
        scale_N1 = (toward_ND**2).sum(axis=1, keepdims=True) + 1e-3 * depth
        along_NG = (toward_ND @ cell_DG - (toward_ND * outside_ND).sum(axis=1, keepdims=True)) / scale_N1
        mean_in_N, mean_out_N = (self.inside_NG * along_NG).sum(1), (self.outside_NG * along_NG).sum(1)
        var_in_N = (self.inside_NG * (along_NG - mean_in_N[:, None]) ** 2).sum(1)
        var_out_N = (self.outside_NG * (along_NG - mean_out_N[:, None]) ** 2).sum(1)
        fisher_N = np.log1p((mean_in_N - mean_out_N) ** 2 / (var_in_N + var_out_N + 1e-3))
        told_in_N = (self.inside_NG * (along_NG > 0.5)).sum(1)
        told_out_N = (self.outside_NG * (along_NG < 0.5)).sum(1)
        between_N = np.clip((self.outline_NG * along_NG).sum(1), -1, 2)
        columns = (apart_N, alike_N, uneven_N, fisher_N, told_in_N, told_out_N, between_N)
        return np.stack(columns, axis=1).astype(np.float32)


def embedding_cells(embedding: ImageEmbedding, grid: CellGrid) -> Floats32:
    """float32[D, R, C]: the embedding at each cell, channels normed over the picture.

    Args:
        embedding: of the whole picture.
        grid: its cells.
    """
    features_DHW = embedding.features_CHW.detach().float().cpu().numpy()
    frame = embedding.frame
    height, width = features_DHW.shape[1:]
    used_rows = max(1, round(height * frame.input_height / frame.image_size))
    used_columns = max(1, round(width * frame.input_width / frame.image_size))
    row_R = ((np.arange(grid.rows) + 0.5) / grid.rows * used_rows).astype(int)
    column_C = ((np.arange(grid.columns) + 0.5) / grid.columns * used_columns).astype(int)
    used_DHW = normed(features_DHW[:, :used_rows, :used_columns])
    cells: Floats32 = used_DHW[:, row_R[:, None], column_C[None, :]]
    return cells


def picture_cells(pixels_HWC: Pixels, grid: CellGrid) -> Floats32:
    """float32[3, R, C]: the picture's mean colour in each cell, 0 to 1."""
    small_RC3 = resize(pixels_HWC, height=grid.rows, width=grid.columns, threads=1)
    return np.ascontiguousarray(small_RC3.transpose(2, 0, 1), np.float32) / np.float32(255)


def normed(map_DRC: Floats32) -> Floats32:
    """Each channel with mean 0 and deviation 1 over the map; a flat one is 0."""
    flat_DG = map_DRC.reshape(len(map_DRC), -1)
    mean_D1, deviation_D1 = flat_DG.mean(1, keepdims=True), flat_DG.std(1, keepdims=True)
    found: Floats32 = ((flat_DG - mean_D1) / (deviation_D1 + 1e-4)).reshape(map_DRC.shape)
    return found


def edge_strength(colour_3RC: Floats32) -> Floats32:
    """float32[R, C]: colour change from cell to cell, 1 on the picture's average."""
    padded = np.pad(colour_3RC, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength_RC = np.sqrt((across**2 + down**2).sum(axis=0))
    found: Floats32 = strength_RC / (strength_RC.mean() + np.float32(1e-4))
    return found


def _weights(map_N1RC: torch.Tensor) -> Floats32:
    """float32[N, G] that adds up to 1; all 0 where the map is."""
    flat_NG = map_N1RC.flatten(1).numpy()
    found: Floats32 = flat_NG / np.maximum(flat_NG.sum(axis=1, keepdims=True), 1e-6)
    return found


def _scores(image: AnnotatedImage) -> Floats32:
    rows = [
        (one.predicted_iou, one.stability_score, one.predicted_iou * one.stability_score)
        + tuple(float(one.output_token == token) for token in range(3))
        for one in image.annotations
    ]
    return np.array(rows, np.float32)


def _shape(image: AnnotatedImage, pools: _Pools) -> Floats32:
    area_N = np.array([one.area_px for one in image.annotations], np.float32)
    box_N4 = np.array([one.bbox_xywh for one in image.annotations], np.float32)
    x, y, width, height = box_N4[:, 0], box_N4[:, 1], box_N4[:, 2] + 1, box_N4[:, 3] + 1
    touches_N = (x <= 1).astype(np.float32) + (y <= 1)
    touches_N += (x + width >= image.width - 1).astype(np.float32) + (y + height >= image.height - 1)
    share_N = area_N / (image.width * image.height)
    cells_N = np.maximum(pools.cover_NRC.sum((1, 2)), 1e-3)
    columns = (
        np.log(share_N + 1e-5),
        np.log(area_N + 1),
        area_N / (width * height),
        np.abs(np.log(width / height)),
        np.log(pools.outline_length_N**2 / cells_N + 1e-3),
        touches_N,
        pools.core_N / cells_N,
    )
    return np.stack(columns, axis=1).astype(np.float32)


def _company(image: AnnotatedImage, pools: _Pools) -> Floats32:
    cover_NG = pools.cover_NRC.reshape(len(pools.cover_NRC), -1)
    common_NN = cover_NG @ cover_NG.T
    area_N = common_NN.diagonal().copy()
    union_NN = area_N[:, None] + area_N[None, :] - common_NN
    np.fill_diagonal(common_NN, 0)
    iou_N = (common_NN / np.maximum(union_NN, 1e-6)).max(axis=1)
    others_NG = cover_NG.sum(axis=0)[None, :] - cover_NG
    overlap_N = (cover_NG * np.minimum(others_NG, 1)).sum(axis=1) / np.maximum(cover_NG.sum(axis=1), 1e-6)

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
        np.full(len(parents), np.log1p(len(parents))),
        rank_N,
        np.full(len(parents), iou.mean()),
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


def _edges(edge_RC: Floats32, pools: _Pools) -> Floats32:
    edge_G = edge_RC.ravel()
    outline_N, inside_N, outside_N = (
        np.log(weights_NG @ edge_G + 1e-2)
        for weights_NG in (pools.outline_NG, pools.inside_NG, pools.outside_NG)
    )
    return np.stack((outline_N, inside_N, outside_N, outline_N - np.maximum(inside_N, outside_N)), axis=1)
