"""Generated scenes with whole, part and subpart masks: what nano learns from, is measured on, and what the
demo shows.

A seed and a size give the same scene always (with the same numpy, Pillow and scikit-image). A background is
painted; objects (3 to 12, or a field of 12 to 40 cells) are drawn over it back to front, each textured,
shaded, sometimes outlined, blurred or throwing a shadow; then blur, noise and JPEG. A mask is what stays
visible. It is kept when it covers at least `min_area` of the image, at least 30 % of itself is visible, it
is no sliver (twice its area is at least 3 times its boundary's length in pixels), it is no near copy of its
parent, and it is at most 90 % of the image.

It doesn't know about perspective, transparency or text, and the objects have no meaning.

Shapes: N masks, H x W pixels, 3 RGB.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from maskmill.pipeline.scenes import objects as scene_objects
from maskmill.pipeline.scenes import textures
from maskmill.pipeline.scenes.objects import Piece

Image3 = NDArray[np.float32]
Box = tuple[slice, slice]

HELD_BACK_SEED = 10_000_000  # seeds from here on are never trained on


@dataclass(frozen=True)
class Scene:
    """A picture and its masks.

    Attributes:
        image: uint8[H, W, 3], RGB.
        masks_NHW: bool[N, H, W], the visible region of each whole, part and subpart.
        level_N: int64[N], 0 whole, 1 part, 2 subpart.
        photo_background: what no mask covers is a photograph, and may show things too.
        parent_N: int64[N], index of the smallest mask in the scene that this one is a piece of, -1 for
            wholes.
    """

    image: NDArray[np.uint8]
    masks_NHW: NDArray[np.bool_]
    level_N: NDArray[np.int64]
    parent_N: NDArray[np.int64]
    photo_background: bool


@dataclass(frozen=True)
class _Look:
    """What a scene's objects have in common."""

    cells: bool
    planes: list[NDArray[np.float32]]
    contrast: float
    outlined: float
    edge_px: float
    object_colour: NDArray[np.float32] | None
    photo_background: bool = False


def generate_scene(seed: int, size_px: int | tuple[int, int] = 256, *, min_area: float = 0.002) -> Scene:
    """Generate one scene.

    Args:
        seed: at least 0; `HELD_BACK_SEED` and above are for measuring only.
        size_px: the side of a square scene, or (height, width); at least 32 a side.
        min_area: the least share of the image a mask covers, in (0, 0.5].

    Returns:
        The scene; it may, rarely, hold no mask at all.

    Raises:
        ValueError: a negative seed, a smaller side or another share.
    """
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    if seed < 0:
        raise ValueError(f"scene seed {seed}: use 0 or more")
    if min(height, width) < 32:
        raise ValueError(f"scene of {height} x {width} px: use at least 32 px a side")
    if not 0 < min_area <= 0.5:
        raise ValueError(f"min_area {min_area}: use a share in (0, 0.5]")
    rng = np.random.default_rng([seed, 0x5CE7E])
    look, image = _background(rng, height, width)
    placed = _place_objects(rng, look, height, width)
    visible: list[Piece] = []
    for pieces in placed:
        _paint_object(rng, image, pieces, look)
        visible = _occlude(visible, pieces)
    return _finish(rng, image, visible, placed, min_area, look.photo_background)


def _background(rng: np.random.Generator, height: int, width: int) -> tuple[_Look, Image3]:
    cells = rng.random() < 0.16
    planes = [textures.plane(rng, height, width) for _ in range(3)]
    image = np.empty((height, width, 3), np.float32)
    kind = rng.random()

    # Microscopy: a plain ground, cells of one colour
    if cells:
        dark, pink = kind < 0.4, kind > 0.65
        base = np.array([18, 18, 20] if dark else [225, 185, 210] if pink else [165, 165, 160], np.float32)
        base = base + rng.normal(0, 12, 3).astype(np.float32)
        tint = np.array([90, 60, 130] if pink else [0, 0, 0], np.float32)
        colour = (
            textures.colour_unlike(rng, base, 60)
            if not pink
            else tint + rng.normal(0, 20, 3).astype(np.float32)
        )
        image[:] = base
        image += planes[0][..., None] * np.float32(rng.uniform(0, 5 if dark else 14))
        return _Look(True, planes, 30, 0.15, rng.uniform(0.5, 1.8), np.clip(colour, 0, 255)), image

    # A photograph, or a ramp with texture
    if kind < 0.3:
        image[:] = textures.photo_patch(rng, height, width)
        if rng.random() < 0.5:
            image = _blur(image, rng.uniform(1, 6))
    else:
        ends = textures.colour(rng), textures.colour(rng)
        ramp = np.linspace(0, rng.uniform(0, 1), height, dtype=np.float32)[:, None, None]
        image[:] = ends[0] * (1 - ramp) + ends[1] * ramp
        image += planes[0][..., None] * np.float32(rng.choice([0, 4, 10, 22, 32]))

    contrast = float(rng.choice([25, 45, 70]))
    outlined = float(rng.choice([0, 0, 0.3, 1.0]))
    return _Look(
        False, planes, contrast, outlined, rng.choice([0.45, 0.6, 0.6, 1.2]), None, kind < 0.3
    ), image


def _place_objects(rng: np.random.Generator, look: _Look, height: int, width: int) -> list[list[Piece]]:
    shape, side = (height, width), min(height, width)
    placed: list[list[Piece]] = []
    if look.cells:
        radius = side * rng.uniform(0.035, 0.11)
        for _ in range(int(rng.integers(12, 41) * (0.06 * side / radius))):
            centre_xy = rng.uniform(0, 1, 2) * [width, height]
            placed.append(scene_objects.cell(rng, centre_xy, radius * rng.uniform(0.7, 1.35), shape))
        return [pieces for pieces in placed if pieces]
    if rng.random() < 0.3:
        for share in np.sort(rng.uniform(0.25, 0.8, int(rng.integers(1, 4)))):
            placed.append(scene_objects.layer(rng, float(share), shape))
    typical = rng.uniform(0.07, 0.22)
    for _ in range(int(rng.integers(3, 13))):
        centre_xy = rng.uniform(0.03, 0.97, 2) * [width, height]
        radius = side * float(np.clip(typical * np.exp(rng.normal(0, 0.5)), 0.035, 0.42))
        placed.append(scene_objects.compound(rng, centre_xy, radius, shape))
    return [pieces for pieces in placed if pieces]


def _blur(image: Image3, radius_px: float) -> Image3:
    eight_bit = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    return np.asarray(eight_bit.filter(ImageFilter.GaussianBlur(float(radius_px))), dtype=np.float32)


def _soft(mask_HW: NDArray[np.bool_], radius_px: float) -> NDArray[np.float32]:
    blurred = Image.fromarray(mask_HW.astype(np.uint8) * 255).filter(
        ImageFilter.GaussianBlur(float(radius_px))
    )
    return np.asarray(blurred, dtype=np.float32) / np.float32(255)


def _around(mask_HW: NDArray[np.bool_], margin_px: int) -> Box:
    rows, cols = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    return (
        slice(max(0, rows[0] - margin_px), rows[-1] + 1 + margin_px),
        slice(max(0, cols[0] - margin_px), cols[-1] + 1 + margin_px),
    )


def _paint_object(rng: np.random.Generator, image: Image3, pieces: list[Piece], look: _Look) -> None:
    """Paint a whole and its pieces on a layer of its own, then lay that over the image."""
    margin = max(4, round(0.03 * max(image.shape)))
    whole_HW = pieces[0].mask_HW
    box = _around(whole_HW, margin)
    canvas, whole = image[box], whole_HW[box]

    below = canvas[whole].mean(axis=0)
    if rng.random() < 0.25 and not look.cells:
        _shadow(rng, canvas, whole, margin)

    # Each piece unlike what lies below it
    layer = canvas.copy()
    colours: list[NDArray[np.float32]] = []
    for piece in pieces:
        other = below if piece.parent < 0 else colours[piece.parent]
        like = look.object_colour if piece.parent < 0 else colours[0] if rng.random() < 0.4 else None
        colours.append(textures.colour_unlike(rng, other, look.contrast, like))
        _paint_piece(rng, layer, piece.mask_HW[box], colours[-1], look, box)

    _shade(rng, layer, whole)
    if rng.random() < look.outlined:
        rim = _soft(whole, 1.0) * (1 - _soft(whole, 1.0)) * 4
        ink = np.float32(20 if rng.random() < 0.7 else 235)
        layer += (ink - layer) * (rim * np.float32(rng.uniform(0.4, 0.9)))[..., None]

    alpha = _soft(whole, look.edge_px)[..., None]
    canvas += (layer - canvas) * alpha


def _paint_piece(
    rng: np.random.Generator,
    layer: Image3,
    mask_HW: NDArray[np.bool_],
    colour: NDArray[np.float32],
    look: _Look,
    box: Box,
) -> None:
    if not mask_HW.any():
        return
    height, width = mask_HW.shape
    surface = np.empty_like(layer)
    if rng.random() < 0.12 and not look.cells:
        surface[:] = textures.photo_patch(rng, height, width)
        surface += (colour - surface.mean(axis=(0, 1))) * np.float32(rng.uniform(0.3, 1.0))
    else:
        surface[:] = colour
    strength = np.float32(rng.choice([0, 3, 6, 12, 22]) if not look.cells else rng.uniform(0, 10))
    if strength:
        texture = look.planes[int(rng.integers(len(look.planes)))]
        shift = int(rng.integers(texture.shape[0]))
        surface += np.roll(texture, shift, axis=0)[box][:height, :width, None] * strength
    alpha = _soft(mask_HW, look.edge_px)[..., None]
    layer += (surface - layer) * alpha


def _shade(rng: np.random.Generator, layer: Image3, whole: NDArray[np.bool_]) -> None:
    """Light from one side, or a rounded look, or neither."""
    kind, height, width = rng.random(), *whole.shape
    if kind < 0.4:
        angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.5)
        y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
        x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None, :]
        layer *= (1 + np.float32(depth) * (np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y))[
            ..., None
        ]
    elif kind < 0.65:
        round_HW = _soft(whole, 0.18 * min(height, width))
        layer *= (np.float32(0.6) + np.float32(0.5) * round_HW)[..., None]


def _shadow(rng: np.random.Generator, canvas: Image3, whole: NDArray[np.bool_], margin: int) -> None:
    dy, dx = rng.integers(-margin // 2, margin // 2 + 1, 2)
    height, width = whole.shape
    padded = np.pad(_soft(whole, margin / 3), margin)
    moved = padded[margin - dy : margin - dy + height, margin - dx : margin - dx + width]
    canvas *= (1 - np.float32(rng.uniform(0.15, 0.45)) * moved)[..., None]


def _occlude(visible: list[Piece], pieces: list[Piece]) -> list[Piece]:
    """Take what the new object hides away from all earlier masks, and add its own."""
    hides_HW = ~pieces[0].mask_HW
    for piece in visible:
        np.logical_and(piece.mask_HW, hides_HW, out=piece.mask_HW)
    base = len(visible)
    fresh = [Piece(p.mask_HW.copy(), p.level, -1 if p.parent < 0 else p.parent + base) for p in pieces]
    return visible + fresh


def _finish(
    rng: np.random.Generator,
    image: Image3,
    visible: list[Piece],
    placed: list[list[Piece]],
    min_area: float,
    photo_background: bool,
) -> Scene:
    full_px = np.array([piece.mask_HW.sum() for pieces in placed for piece in pieces], dtype=np.int64)
    masks = np.stack([p.mask_HW for p in visible]) if visible else np.zeros((0, *image.shape[:2]), np.bool_)
    parent = np.array([p.parent for p in visible], dtype=np.int64)
    keep = _worth_keeping(masks, parent, full_px, min_area)
    index = np.cumsum(keep) - 1
    for i in range(len(parent)):  # parents come first, so theirs are already final
        if parent[i] >= 0 and not keep[parent[i]]:
            parent[i] = parent[parent[i]]
    level = np.array([p.level for p in visible], dtype=np.int64)[keep]
    parent = np.where(parent[keep] >= 0, index[parent[keep]], -1) if len(parent) else parent
    return Scene(_camera(rng, image), masks[keep], level, parent, photo_background)


def _worth_keeping(
    masks: NDArray[np.bool_], parent: NDArray[np.int64], full_px: NDArray[np.int64], min_area: float
) -> NDArray[np.bool_]:
    area_px = masks.sum(axis=(1, 2))
    inner = (
        masks[:, 1:-1, 1:-1]
        & masks[:, :-2, 1:-1]
        & masks[:, 2:, 1:-1]
        & masks[:, 1:-1, :-2]
        & masks[:, 1:-1, 2:]
    )
    boundary_px = area_px - inner.sum(axis=(1, 2))
    size_px = masks.shape[1] * masks.shape[2]
    keep = (area_px >= min_area * size_px) & (area_px <= 0.9 * size_px)
    keep &= (area_px >= 0.3 * full_px) & (2 * area_px >= 3 * boundary_px)
    for i in np.flatnonzero(keep & (parent >= 0)):
        keep[i] = area_px[i] < 0.9 * area_px[parent[i]]
    return np.asarray(keep, dtype=np.bool_)


def _camera(rng: np.random.Generator, image: Image3) -> NDArray[np.uint8]:
    """Blur, noise, eight bits and JPEG, each in some scenes only."""
    if rng.random() < 0.15:
        image = _blur(image, rng.uniform(0.5, 1.3))
    if rng.random() < 0.6:
        image = image + rng.normal(0, rng.uniform(1, 11), image.shape).astype(np.float32)
    eight_bit = np.clip(image, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        Image.fromarray(eight_bit).save(buffer, "JPEG", quality=int(rng.integers(35, 96)))
        eight_bit = np.asarray(Image.open(buffer))
    return np.ascontiguousarray(eight_bit)
