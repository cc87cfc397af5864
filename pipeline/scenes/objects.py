"""The geometry of one generated object: a whole, its parts and their subparts, as masks before occlusion.

Shapes: HW the image. A piece is one mask with its level and its parent within the object; pieces[0] is the
whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskmill.pipeline.scenes import outlines
from maskmill.pipeline.scenes.outlines import Mask, Points

WHOLE, PART, SUBPART = 0, 1, 2


@dataclass(frozen=True)
class Piece:
    """One mask of an object before occlusion.

    Attributes:
        mask_HW: bool[H, W].
        level: 0 whole, 1 part, 2 subpart.
        parent: index of the piece it lies in, -1 for the whole.
    """

    mask_HW: Mask
    level: int
    parent: int


def _random_outline(rng: np.random.Generator, solid: bool) -> outlines.Outline:
    choices = outlines.SOLID_SHAPES if solid else outlines.SHAPES
    return choices[int(rng.integers(len(choices)))](rng)


def _shape(
    rng: np.random.Generator, centre_xy: Points, radius_px: float, shape: tuple[int, int], solid: bool
) -> Mask:
    outline = outlines.place(_random_outline(rng, solid), centre_xy, radius_px, rng.uniform(0, 2 * np.pi))
    return outlines.raster(outline, *shape)


def _point_inside(rng: np.random.Generator, mask_HW: Mask) -> Points:
    index = np.flatnonzero(mask_HW)
    y, x = divmod(int(index[rng.integers(len(index))]), mask_HW.shape[1])
    return np.array([x, y], dtype=np.float64)


def _inlays(rng: np.random.Generator, pieces: list[Piece], parent: int, count: int) -> None:
    """Draw smaller shapes inside a piece, without overlap between them."""
    host_HW = pieces[parent].mask_HW
    area_px = int(host_HW.sum())
    if area_px < 150:
        return
    free_HW = host_HW.copy()
    share = rng.uniform(0.16, 0.42) / np.sqrt(max(1, count) / 1.5)
    for _ in range(count):
        if free_HW.sum() < 0.3 * area_px:
            return
        radius_px = share * np.sqrt(area_px) * rng.uniform(0.75, 1.25)
        inlay_HW = _shape(rng, _point_inside(rng, free_HW), radius_px, host_HW.shape, rng.random() < 0.8)
        inlay_HW &= free_HW
        if inlay_HW.sum() >= 0.02 * area_px:
            pieces.append(Piece(inlay_HW, pieces[parent].level + 1, parent))
            free_HW &= ~inlay_HW


def _split(rng: np.random.Generator, pieces: list[Piece]) -> None:
    """Cut the whole by one or two parallel lines, or by a smaller copy of itself, into parts that cover
    it."""
    whole_HW = pieces[0].mask_HW
    y, x = np.nonzero(whole_HW)
    angle = rng.uniform(0, np.pi)
    along = np.cos(angle) * x + np.sin(angle) * y
    cuts = np.quantile(along, np.sort(rng.uniform(0.2, 0.8, int(rng.integers(1, 3)))))
    side = np.searchsorted(cuts, along)
    for i in range(len(cuts) + 1):
        part_HW = np.zeros_like(whole_HW)
        part_HW[y[side == i], x[side == i]] = True
        pieces.append(Piece(part_HW, PART, 0))


def _limbs(rng: np.random.Generator, body_HW: Mask, centre_xy: Points, radius_px: float) -> list[Piece]:
    """Add parts that stick out of a body; the whole is their union."""
    count = int(rng.integers(1, 5))
    start, limbs = rng.uniform(0, 2 * np.pi), []
    whole_HW, taken_HW = body_HW.copy(), body_HW.copy()
    for i in range(count):
        angle = start + 2 * np.pi * i / count + rng.uniform(-0.3, 0.3)
        reach_px = radius_px * rng.uniform(0.7, 1.0)
        at_xy = centre_xy + reach_px * np.array([np.cos(angle), np.sin(angle)])
        size_px = radius_px * rng.uniform(0.3, 0.6)
        outline = outlines.place(_random_outline(rng, True), at_xy, size_px, angle)
        limb_HW = outlines.raster(outline, *body_HW.shape) & ~taken_HW
        limbs.append(limb_HW)
        taken_HW |= limb_HW
        whole_HW |= limb_HW
    return [Piece(whole_HW, WHOLE, -1), Piece(body_HW, PART, 0), *(Piece(limb, PART, 0) for limb in limbs)]


def compound(
    rng: np.random.Generator, centre_xy: Points, radius_px: float, shape: tuple[int, int]
) -> list[Piece]:
    """A random object: plain, inlaid, split or with limbs, some parts with subparts.

    Args:
        rng: consumed.
        centre_xy: float[2], pixels; may lie near or beyond the border.
        radius_px: about half the object's longest side.
        shape: (height, width) of the image.

    Returns:
        Pieces in drawing order, wholes before parts before subparts; empty where nothing is in the image.
    """
    kind = rng.random()
    body_HW = _shape(rng, centre_xy, radius_px, shape, solid=kind > 0.3)
    if not body_HW.any():
        return []
    pieces = [Piece(body_HW, WHOLE, -1)]
    if kind > 0.8:
        pieces = _limbs(rng, body_HW, centre_xy, radius_px)
    elif kind > 0.65:
        _split(rng, pieces)
    elif kind > 0.35:
        _inlays(rng, pieces, 0, int(rng.integers(1, 5)))
    for parent in [i for i, piece in enumerate(pieces) if piece.level == PART]:
        if rng.random() < 0.35:
            _inlays(rng, pieces, parent, int(rng.integers(1, 4)))
    return pieces


def cell(
    rng: np.random.Generator, centre_xy: Points, radius_px: float, shape: tuple[int, int]
) -> list[Piece]:
    """A rounded cell or nucleus, sometimes with a core."""
    outline = outlines.blob(rng, roughness=0.18)
    whole_HW = outlines.raster(
        outlines.place(outline, centre_xy, radius_px, rng.uniform(0, 2 * np.pi)), *shape
    )
    pieces = [Piece(whole_HW, WHOLE, -1)] if whole_HW.any() else []
    if pieces and radius_px > 0.08 * max(shape) and rng.random() < 0.5:
        _inlays(rng, pieces, 0, 1)
    return pieces


def layer(rng: np.random.Generator, height_share: float, shape: tuple[int, int]) -> list[Piece]:
    """Everything below a wavy horizon: ground, hills, water, a wall, a table."""
    height, width = shape
    x = np.linspace(0, 1, width)
    edge = height * (height_share + rng.uniform(-0.2, 0.2) * (x - 0.5))
    if rng.random() < 0.6:
        for k in range(1, 5):
            edge += height * 0.05 * rng.normal() / k * np.cos(2 * np.pi * (k * x + rng.random()))
    mask_HW = np.arange(height)[:, None] >= edge[None, :]
    return [Piece(mask_HW, WHOLE, -1)] if mask_HW.any() else []
