"""Crops of photographs: labels move with pixels, sizes and counts are as asked, mosaics and pastes keep
ids apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskmill.pipeline.train.nano.pictures.photo_crops import (
    LABELS_A_PHOTO,
    MOST_MASKS,
    CropConfig,
    LabelledPhoto,
    PhotoStore,
)

PLAIN = CropConfig(mosaic_share=0.0)
CPU = torch.device("cpu")


def _blocks(height: int = 60, width: int = 90, maps: int = 1) -> LabelledPhoto:
    """Blocks of 15 px, each of a colour that says its label."""
    rows, cols = np.mgrid[:height, :width] // 15
    labels = (1 + rows * 6 + cols).astype(np.int32)
    image = np.stack([10 * labels, 250 - 10 * labels, np.full_like(labels, 90)], -1).astype(np.uint8)
    return LabelledPhoto(image, np.repeat(labels[None], maps, 0))


def _check_colours(store: PhotoStore, config: CropConfig, count: int = 12) -> int:
    """The pixels inside each mask are of one block's colour."""
    pictures = store.draw(count, 64, config, torch.Generator().manual_seed(0))
    looked_at = 0
    for b in range(len(pictures)):
        image = pictures.image_B3SS[b].float()
        for cells in pictures.cells_BNss[b]:
            full = (cells == 4).repeat_interleave(2, 0).repeat_interleave(2, 1)
            inner = full & full.roll(3, 0) & full.roll(-3, 0) & full.roll(3, 1) & full.roll(-3, 1)
            if inner.sum() > 8:
                off = (image[:, inner] - image[:, inner].median(1, keepdim=True).values).abs() > 4
                assert off.float().mean() < 0.1
                looked_at += 1
    return looked_at


def test_labels_move_with_their_pixels() -> None:
    assert _check_colours(PhotoStore([_blocks()], CPU), PLAIN) > 30


def test_mosaics_and_pastes_keep_photographs_apart() -> None:
    store = PhotoStore([_blocks(), _blocks(90, 60)], CPU)
    assert _check_colours(store, CropConfig(mosaic_share=1.0)) > 30
    assert _check_colours(store, CropConfig(mosaic_share=0.0, paste_share=1.0)) > 30


def test_pasting_adds_segments_of_another_photograph() -> None:
    labels = np.zeros((1, 60, 60), np.int32)
    labels[0, 20:40, 20:40] = 1
    grey = LabelledPhoto(np.full((60, 60, 3), 128, np.uint8), labels)
    store, most = PhotoStore([grey, _blocks(60, 60)], CPU), []
    for share in (0.0, 1.0):
        config = CropConfig(mosaic_share=0.0, paste_share=share)
        drawn = store.draw(40, 64, config, torch.Generator().manual_seed(1))
        is_grey = (drawn.image_B3SS == 128).float().mean(dim=(1, 2, 3)) > 0.5
        most.append(int(drawn.solid_BNss()[is_grey].flatten(2).any(2).sum(1).max()))
    assert most[0] == 1
    assert most[1] >= 2


def test_sizes_follow_the_window_and_padding_is_empty() -> None:
    store = PhotoStore([_blocks()], CPU)
    pictures = store.draw(10, 96, PLAIN, torch.Generator().manual_seed(2))
    assert len(pictures) == 10
    assert pictures.image_B3SS.shape == (10, 3, 96, 96)
    assert (pictures.size_B2.amax(1) == 96).all()
    assert not pictures.image_B3SS[~pictures.inside_BSS()[:, None].expand(-1, 3, -1, -1)].any()
    assert pictures.cells_BNss.shape[1] <= MOST_MASKS
    assert not pictures.is_void_known_B.any()


def test_several_label_maps_give_a_region_once() -> None:
    one, three = (
        PhotoStore([_blocks(maps=maps)], CPU).draw(6, 64, PLAIN, torch.Generator().manual_seed(3))
        for maps in (1, 3)
    )
    counts = [p.solid_BNss().flatten(2).any(2).sum(1) for p in (one, three)]
    assert (counts[1] <= counts[0]).all()


def test_slivers_are_left_out_where_thick_regions_are_wanted() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[20:40, 20:40], labels[50:53] = 1, 2
    photo = LabelledPhoto(np.zeros((60, 60, 3), np.uint8), labels[None])
    whole = CropConfig(most_scale=1.0, stretch=0.0, mosaic_share=0.0)
    thick = CropConfig(most_scale=1.0, stretch=0.0, mosaic_share=0.0, thick_only=True)
    counts = [
        PhotoStore([photo], CPU).draw(1, 64, config, torch.Generator().manual_seed(0)).cells_BNss.shape[1]
        for config in (whole, thick)
    ]
    assert counts == [2, 1]


def test_pictures_without_masks_are_left_out() -> None:
    bare = LabelledPhoto(np.zeros((40, 40, 3), np.uint8), np.zeros((1, 40, 40), np.int32))
    assert len(PhotoStore([bare], CPU).draw(3, 64, PLAIN, torch.Generator())) == 0


def test_photographs_that_cannot_be_cropped_are_named() -> None:
    with pytest.raises(ValueError, match="no photographs"):
        PhotoStore([], CPU)
    many = LabelledPhoto(np.zeros((4, 4, 3), np.uint8), np.full((1, 4, 4), LABELS_A_PHOTO))
    with pytest.raises(ValueError, match=f"{LABELS_A_PHOTO} labels"):
        PhotoStore([many], CPU)
