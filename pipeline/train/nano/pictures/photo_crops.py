"""Crops of photographs with known segments, drawn on the device that holds them.

A `PhotoStore` keeps photographs as bytes with one or more label maps each: a person's segments (one map),
or bottom-up regions at three scales. A crop takes a window at 1 to 2.2 times the scale at which the
photograph fits, or four windows of four photographs at half that (a mosaic), mirrored at random. Segments
of one photograph are pasted onto another where labels are a person's. All geometry is tensors: the same on
CPU and GPU.

It doesn't know about colours (photo_looks.py) or prompts (draw_prompts.py).

Shapes: B pictures, L label maps, S the padded side, h x w a window's size in the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from maskmill.pipeline.train.pictures import Pictures, cells_of, together

MOST_MASKS = 24
LABELS_A_PHOTO = 4096
"""Labels of a photograph are below this; those of a second one in the same picture are raised by it."""

SUPERSAMPLING = 2


@dataclass(frozen=True, eq=False)
class LabelledPhoto:
    """A photograph and its label maps.

    Attributes:
        image: uint8[H, W, 3], RGB.
        labels_LHW: integer[L, H, W], 1 and up for segments, 0 elsewhere.
    """

    image: NDArray[np.uint8]
    labels_LHW: NDArray[np.integer]


@dataclass(frozen=True)
class CropConfig:
    """How crops are drawn.

    Attributes:
        most_scale: a window is at most this many times smaller than its photograph.
        stretch: windows are stretched by up to this share.
        mosaic_share: share of pictures made of four.
        paste_share: share of pictures that get segments of another one.
        min_share: the least share of the picture a mask covers.
        max_share: the most.
        thick_only: leave out masks of which less than a third is two pixels from a border.
    """

    most_scale: float = 2.2
    stretch: float = 0.2
    mosaic_share: float = 0.25
    paste_share: float = 0.0
    min_share: float = 0.0006
    max_share: float = 0.9
    thick_only: bool = False


@dataclass(frozen=True, eq=False)
class _Crops:
    """Cut windows: float32 image 0..255, label maps, and what isn't padding."""

    image_B3SS: Tensor
    labels_BLSS: Tensor
    size_B2: Tensor


class PhotoStore:
    """Photographs as bytes on a device.

    Args:
        photos: at least one, all of as many label maps.
        device: where they stay and crops are drawn.

    Raises:
        ValueError: no photograph, or too many labels in one.
    """

    def __init__(self, photos: Sequence[LabelledPhoto], device: torch.device) -> None:
        if not photos:
            raise ValueError("no photographs to crop: give at least one")
        most = max(int(photo.labels_LHW.max()) for photo in photos)
        if most >= LABELS_A_PHOTO:
            raise ValueError(f"a photograph has {most} labels: at most {LABELS_A_PHOTO - 1}")
        side_hw = np.max([photo.image.shape[:2] for photo in photos], axis=0)
        shape = (len(photos), *side_hw)
        images = np.zeros((*shape, 3), np.uint8)
        labels = np.zeros((len(photos), len(photos[0].labels_LHW), *side_hw), np.int16)
        for row, photo in enumerate(photos):
            height, width = photo.image.shape[:2]
            images[row, :height, :width] = photo.image
            labels[row, :, :height, :width] = photo.labels_LHW
        self.device = device
        self._images_R3HW = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
        self._labels_RLHW = torch.from_numpy(labels).to(device)
        self._size_R2 = torch.tensor([photo.image.shape[:2] for photo in photos], device=device)

    def __len__(self) -> int:
        return len(self._size_R2)

    def draw(self, count: int, side: int, config: CropConfig, generator: torch.Generator) -> Pictures:
        """Crops with masks.

        Args:
            count: pictures to try.
            side: S, pixels, a multiple of 4.
            config: how.
            generator: of the store's device.

        Returns:
            Those that hold a mask, `count` at most; colours are as in the photographs.
        """
        mosaics = int((_uniform(generator, count) < config.mosaic_share).sum())
        parts = [self._windows(count - mosaics, side, config, generator)] if count > mosaics else []
        if mosaics:
            parts.append(_mosaic(self._windows(4 * mosaics, side // 2, config, generator, square=True)))
        crops = _Crops(*(torch.cat(tensors) for tensors in zip(*map(_tensors, parts), strict=True)))
        if config.paste_share:
            crops = _paste(crops, config.paste_share, generator)
        return _with_masks(crops, config, generator)

    def _windows(
        self, count: int, side: int, config: CropConfig, generator: torch.Generator, *, square: bool = False
    ) -> _Crops:
        """Random windows, each scaled to fit the side."""
        row_B = torch.randint(len(self), (count,), generator=generator, device=self.device)
        full_B2 = self._size_R2[row_B].float()

        # A window of each, stretched a little
        scale_B = config.most_scale ** _uniform(generator, count)
        window_B2 = full_B2 / scale_B[:, None]
        stretch_B = torch.exp(config.stretch * (2 * _uniform(generator, count) - 1))
        if square:
            window_B2 = window_B2.amin(1, keepdim=True).expand(-1, 2).clone()
        window_B2[:, 0] = torch.minimum(window_B2[:, 0] * stretch_B, full_B2[:, 0])
        start_B2 = torch.stack([_uniform(generator, count) for _ in range(2)], 1) * (full_B2 - window_B2)
        size_B2 = (side * window_B2 / window_B2.amax(1, keepdim=True)).round().clamp(min=1).long()
        if square:
            size_B2 = torch.full_like(size_B2, side)
        mirrored_B = _uniform(generator, count) < 0.5

        # Its pixels, from a finer grid
        image_BRGB = self._images_R3HW[row_B].float()
        fine = [
            _source_places(start_B2, window_B2, size_B2, side, step, mirrored_B)
            for step in (SUPERSAMPLING, 1)
        ]
        image_B3SS = F.avg_pool2d(_sample(image_BRGB, fine[0], "bilinear"), SUPERSAMPLING)
        labels_BLSS = _sample(self._labels_RLHW[row_B].float(), fine[1], "nearest").to(torch.int32)

        inside_B1SS = _inside(size_B2, side)[:, None]
        return _Crops(image_B3SS * inside_B1SS, labels_BLSS * inside_B1SS, size_B2)


def _tensors(crops: _Crops) -> tuple[Tensor, Tensor, Tensor]:
    return crops.image_B3SS, crops.labels_BLSS, crops.size_B2


def _uniform(generator: torch.Generator, count: int) -> Tensor:
    return torch.rand(count, generator=generator, device=generator.device)


def _inside(size_B2: Tensor, side: int) -> Tensor:
    place = torch.arange(side, device=size_B2.device)
    return (place < size_B2[:, 0, None])[:, :, None] & (place < size_B2[:, 1, None])[:, None, :]


def _source_places(
    start_B2: Tensor, window_B2: Tensor, size_B2: Tensor, side: int, step: int, mirrored_B: Tensor
) -> Tensor:
    """Where each pixel of `step` times the side lies in its photograph, in px: float[B, 2, step x S]."""
    unit_S = (torch.arange(side * step, device=start_B2.device) + 0.5) / step
    share_B2S = unit_S / size_B2[..., None]
    flip_B2 = torch.stack([torch.zeros_like(mirrored_B), mirrored_B], 1)
    share_B2S = torch.where(flip_B2[..., None], 1 - share_B2S, share_B2S)
    return start_B2[..., None] + share_B2S * window_B2[..., None]


def _sample(source_BCHW: Tensor, place_B2S: Tensor, mode: str) -> Tensor:
    """Source values at the places' cross product; the border's beyond it."""
    height, width = source_BCHW.shape[-2:]
    y_BS, x_BS = 2 * place_B2S[:, 0] / height - 1, 2 * place_B2S[:, 1] / width - 1
    side = place_B2S.shape[-1]
    grid_BSS2 = torch.stack(
        [x_BS[:, None, :].expand(-1, side, -1), y_BS[:, :, None].expand(-1, -1, side)], dim=-1
    )
    return F.grid_sample(source_BCHW, grid_BSS2, mode=mode, padding_mode="border", align_corners=False)


def _mosaic(tiles: _Crops) -> _Crops:
    """Four square tiles to a picture; labels of each raised apart."""
    labels_TLHW = tiles.labels_BLSS
    quarter_T = torch.arange(len(labels_TLHW), device=labels_TLHW.device) % 4
    raised = (labels_TLHW + quarter_T[:, None, None, None] * LABELS_A_PHOTO) * (labels_TLHW > 0)
    size_B2 = 2 * tiles.size_B2[::4]
    return _Crops(_tiled(tiles.image_B3SS), _tiled(raised), size_B2)


def _tiled(tiles_TCHW: Tensor) -> Tensor:
    four = tiles_TCHW.view(-1, 4, *tiles_TCHW.shape[1:])
    rows = [torch.cat([four[:, i], four[:, i + 1]], dim=-1) for i in (0, 2)]
    return torch.cat(rows, dim=-2)


def _paste(crops: _Crops, share: float, generator: torch.Generator) -> _Crops:
    """Lay one or two segments of the next picture, moved, over some pictures."""
    image, labels = crops.image_B3SS.clone(), crops.labels_BLSS.clone()
    donor_image, donor_labels = image.roll(1, 0), labels.roll(1, 0)
    inside = _inside(crops.size_B2, image.shape[-1])
    for row in torch.nonzero(_uniform(generator, len(image)) < share)[:, 0].tolist():
        shift = ((2 * _uniform(generator, 2) - 1) * image.shape[-1] / 3).int().tolist()
        ids, counts = torch.unique(donor_labels[row, 0], return_counts=True)
        fits = (ids > 0) & (counts > 200) & (counts < 0.25 * inside[row].sum())
        ids = ids[fits]
        if not len(ids):
            continue
        chosen = ids[torch.randperm(len(ids), generator=generator, device=generator.device)[:2]]
        over = torch.isin(donor_labels[row, 0], chosen).roll(shift, (0, 1)) & inside[row]
        soft = F.avg_pool2d(over[None, None].float(), 3, stride=1, padding=1)[0] * over
        soft = torch.where(over, 0.5 + 0.5 * soft, soft)
        image[row] = image[row] + (donor_image[row].roll(shift, (1, 2)) - image[row]) * soft
        pasted = donor_labels[row].roll(shift, (1, 2)) + 5 * LABELS_A_PHOTO
        labels[row] = torch.where(over[None], pasted, labels[row])
    return _Crops(image, labels, crops.size_B2)


def _with_masks(crops: _Crops, config: CropConfig, generator: torch.Generator) -> Pictures:
    """Labels to masks: those of a fit size, `MOST_MASKS` at random; pictures without any are left out."""
    made = []
    for row, labels_LSS in enumerate(crops.labels_BLSS):
        cells_Nss = _masks_of(labels_LSS, int(crops.size_B2[row].prod()), config, generator)
        if len(cells_Nss):
            image_3SS = crops.image_B3SS[row].round().clamp(0, 255).to(torch.uint8)
            void = torch.zeros(1, dtype=torch.bool, device=image_3SS.device)
            made.append(Pictures(image_3SS[None], crops.size_B2[row][None], cells_Nss[None], void))
    if made:
        return together(made)
    side, device = crops.image_B3SS.shape[-1], crops.image_B3SS.device
    none = torch.zeros(0, 1, side // 2, side // 2, dtype=torch.uint8, device=device)
    image = torch.zeros(0, 3, side, side, dtype=torch.uint8, device=device)
    return Pictures(image, crops.size_B2[:0], none, torch.zeros(0, dtype=torch.bool, device=device))


def _masks_of(labels_LSS: Tensor, area_px: int, config: CropConfig, generator: torch.Generator) -> Tensor:
    """uint8[N, s, s], cells of the chosen labels' masks."""
    found = []
    for plane_SS in labels_LSS:
        ids, counts = torch.unique(plane_SS, return_counts=True)
        fits = (ids > 0) & (counts >= config.min_share * area_px) & (counts <= config.max_share * area_px)
        found += [(plane_SS, label) for label in ids[fits & (counts >= 12)]]
    order = torch.randperm(len(found), generator=generator, device=generator.device).tolist()
    half = labels_LSS.shape[-1] // 2
    if not found:
        return torch.zeros(0, half, half, dtype=torch.uint8, device=labels_LSS.device)
    masks_NSS = torch.stack([found[i][0] == found[i][1] for i in order[: 2 * MOST_MASKS]])
    cells_Nss = cells_of(masks_NSS)
    keep_N = (cells_Nss > 2).sum((1, 2)) >= 3
    if config.thick_only:
        inner = -F.max_pool2d(-cells_Nss[:, None].float(), 3, stride=1, padding=1)[:, 0]
        keep_N &= 3 * inner.sum((1, 2)) >= cells_Nss.sum((1, 2))
    keep_N &= ~_is_copy(cells_Nss)
    return cells_Nss[keep_N][:MOST_MASKS]


def _is_copy(cells_Nss: Tensor) -> Tensor:
    """bool[N], masks that nearly equal an earlier one (regions that several scales agree on)."""
    solid_NK = (cells_Nss > 2).flatten(1).float()
    common_NN = solid_NK @ solid_NK.T
    area_N = solid_NK.sum(1)
    iou_NN = common_NN / (area_N[:, None] + area_N - common_NN).clamp(min=1)
    return (torch.tril(iou_NN, diagonal=-1) > 0.9).any(1)
