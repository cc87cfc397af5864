from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.rle import encode_mask
from maskmill.pipeline.settings.words import NameSettings
from maskmill.pipeline.weights.errors import WrongWeights
from maskmill.pipeline.words.clip import Namer, load_namer
from maskmill.pipeline.words.name import MaskNamer, crops_of, margins, patch_shares
from tests.pipeline.words import tiny_clip

WORDS = ("red circle", "blue square", "green triangle", "yellow circle")
SETTINGS = NameSettings(model="here", vocabulary=WORDS, dense_side=64, top_k=3)
IMAGE = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        "clip": tiny_clip.save(tiny_clip.build_clip(), tmp_path_factory.mktemp("clip")),
        "siglip": tiny_clip.save(tiny_clip.build_siglip(), tmp_path_factory.mktemp("siglip")),
    }


@pytest.fixture(scope="module")
def namers(folders: dict[str, Path]) -> dict[str, Namer]:
    return {name: load_namer(str(folder), device="cpu") for name, folder in folders.items()}


def annotation(mask_HW: Any) -> Annotation:
    rows, columns = np.nonzero(mask_HW)
    x, y = float(columns.min()), float(rows.min())
    return Annotation(
        segmentation=encode_mask(mask_HW),
        bbox_xywh=(x, y, float(columns.max()) - x, float(rows.max()) - y),
        area_px=int(mask_HW.sum()),
        predicted_iou=1.0,
        stability_score=1.0,
        crop_box_xywh=(0.0, 0.0, float(mask_HW.shape[1]), float(mask_HW.shape[0])),
        point_xy=(),
    )


def masks_of(*boxes: tuple[int, int, int, int]) -> AnnotatedImage:
    """Rectangles left, top, right, bottom (exclusive) of the image."""
    found = []
    for left, top, right, bottom in boxes:
        mask = np.zeros(IMAGE.shape[:2], bool)
        mask[top:bottom, left:right] = True
        found.append(annotation(mask))
    return AnnotatedImage(IMAGE.shape[1], IMAGE.shape[0], tuple(found))


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_scores_are_transformers(namers: dict[str, Namer], folders: dict[str, Path], name: str) -> None:
    """Logits and scores of an image against texts, by the classes' own forward."""
    texts = [f"a photo of a {word}." for word in WORDS]
    image = np.ascontiguousarray(IMAGE[:64, :64])
    namer = namers[name]
    ours, scores = namer.scores(
        namer.image_features([image]), namer.text_features(WORDS, ("a photo of a {}.",))
    )
    kind = {"clip": "CLIP", "siglip": "Siglip"}[name]
    model = getattr(transformers, f"{kind}Model").from_pretrained(folders[name])
    images = getattr(transformers, f"{kind}ImageProcessor").from_pretrained(folders[name])
    words = transformers.AutoTokenizer.from_pretrained(folders[name])(
        texts,
        padding="max_length" if name == "siglip" else True,
        max_length=16,
        truncation=True,
        return_tensors="pt",
    )
    mask = {"attention_mask": words["attention_mask"]} if name == "clip" else {}
    with torch.no_grad():
        wanted = model(
            pixel_values=images(images=[image], return_tensors="pt")["pixel_values"],
            input_ids=words["input_ids"],
            **mask,
        ).logits_per_image
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
    theirs = wanted.softmax(-1) if name == "clip" else wanted.sigmoid()
    torch.testing.assert_close(scores, theirs, rtol=0, atol=1e-4)


def test_templates_are_averaged(namers: dict[str, Namer]) -> None:
    namer = namers["clip"]
    one, two = (namer.text_features(WORDS, (template,)) for template in ("{}", "a photo of {}"))
    both = namer.text_features(WORDS, ("{}", "a photo of {}"))
    mean = torch.nn.functional.normalize(one + two, dim=-1)
    torch.testing.assert_close(both, mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_the_dense_map_lies_in_the_images_space(namers: dict[str, Namer], name: str) -> None:
    """A position alone equals the pooled feature of an image of one patch, where both are the same sum."""
    namer = namers[name]
    grid = namer.grid_of(80, 120, 64)
    features_HWD = namer.dense_features(IMAGE, 64)
    assert features_HWD.shape == (grid.height, grid.width, namer.image_features([IMAGE]).shape[1])
    torch.testing.assert_close(features_HWD.norm(dim=-1), torch.ones(grid.height, grid.width))
    assert (grid.height, grid.width) == (5, 8)


def test_clips_dense_map_is_the_last_blocks_value_path(namers: dict[str, Namer]) -> None:
    """With attention in the last block forced to the diagonal, the plain forward gives the same positions."""
    namer = namers["clip"]
    model: Any = namer._towers._model  # type: ignore[attr-defined]
    seen: dict[str, Any] = {}
    hook = model.vision_model.encoder.layers[-1].register_forward_pre_hook(
        lambda layer, given: seen.update(tokens=given[0])
    )
    size = {"height": 32, "width": 32}
    pixels = namer._images(images=[IMAGE], size=size, do_center_crop=False, return_tensors="pt")[
        "pixel_values"
    ]
    with torch.no_grad():
        model.vision_model(pixel_values=pixels)
        hook.remove()
        last = model.vision_model.encoder.layers[-1]
        alone = seen["tokens"].flatten(0, 1)[:, None]  # each token a sequence of its own
        out = last(alone, None)[:, 0].view_as(seen["tokens"])[:, 1:]
        wanted = model.visual_projection(model.vision_model.post_layernorm(out))[0]
    wanted = torch.nn.functional.normalize(wanted, dim=-1)
    ours = namer._towers.dense_features(pixels)[0]
    torch.testing.assert_close(torch.nn.functional.normalize(ours, dim=-1), wanted, rtol=1e-4, atol=1e-5)


def test_shares_of_patches_follow_the_mask() -> None:
    mask = np.zeros((8, 12), bool)
    mask[0:4, 0:6] = True
    shares = patch_shares(annotation(mask), height=2, width=3)
    np.testing.assert_allclose(shares, [[16 / 24, 8 / 24, 0], [0, 0, 0]], rtol=1e-6)
    one = np.zeros((8, 12), bool)
    one[7, 11] = True
    assert patch_shares(annotation(one), height=2, width=3)[1, 2] == 1
    empty = dataclasses.replace(annotation(one), segmentation=encode_mask(np.zeros((8, 12), bool)))
    np.testing.assert_allclose(patch_shares(empty, height=2, width=3), 1 / 6, rtol=1e-6)


def test_shares_are_the_slow_sum() -> None:
    mask = np.random.default_rng(1).random((37, 53)) < 0.3
    shares = patch_shares(annotation(mask), height=5, width=7)
    slow = np.zeros((5, 7))
    for y, x in zip(*np.nonzero(mask), strict=True):
        slow[y * 5 // 37, x * 7 // 53] += 1
    np.testing.assert_allclose(shares, slow / slow.sum(), rtol=1e-5)


def test_crops_are_square_and_the_second_shows_the_mask_alone() -> None:
    (found,) = masks_of((100, 60, 120, 80)).annotations  # in the corner: part of the crop lies outside
    box, alone = crops_of(IMAGE, found, 0.1, (1, 2, 3))
    assert box.shape == alone.shape == (24, 24, 3)
    np.testing.assert_array_equal(box[2:22, 2:22], IMAGE[60:80, 100:120])
    np.testing.assert_array_equal(alone[2:22, 2:22], IMAGE[60:80, 100:120])
    np.testing.assert_array_equal(box[2:22, :2], IMAGE[60:80, 98:100])
    assert (alone[:2] == (1, 2, 3)).all() and (box[-1] == (1, 2, 3)).all()


def test_a_mask_of_one_pixel_is_named_by_crops(namers: dict[str, Namer]) -> None:
    named = MaskNamer(namers["clip"], WORDS, SETTINGS)(IMAGE, masks_of((50, 40, 51, 41), (0, 0, 120, 80)))
    assert named.masks[0].by == "crops"
    assert all(len(found.names) == 3 and sum(found.scores) <= 1.0001 for found in named.masks)


def test_crops_go_to_the_small_and_the_uncertain_up_to_a_limit(namers: dict[str, Namer]) -> None:
    masks = masks_of((0, 0, 120, 80), (0, 0, 4, 4), (0, 0, 8, 8), (0, 0, 60, 60))

    def by(**changes: Any) -> list[str]:
        settings = dataclasses.replace(SETTINGS, uncertain=0.0, **changes)
        return [found.by for found in MaskNamer(namers["clip"], WORDS, settings)(IMAGE, masks).masks]

    assert by(crops="none") == ["dense"] * 4
    assert by(crops="all") == ["crops"] * 4
    assert by(small_patches=2.0) == ["dense", "crops", "crops", "dense"]
    assert by(small_patches=2.0, max_crops=1) == ["dense", "crops", "dense", "dense"]
    sure = dataclasses.replace(SETTINGS, small_patches=0.0, uncertain=100.0)
    assert [f.by for f in MaskNamer(namers["clip"], WORDS, sure)(IMAGE, masks).masks] == ["crops"] * 4
    assert np.isinf(margins(torch.zeros(2, 1))).all()


def test_crops_that_do_not_fit_are_halved(
    namers: dict[str, Namer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    masks = masks_of((0, 0, 4, 4), (9, 9, 14, 14), (20, 20, 29, 29))
    stage = MaskNamer(namers["clip"], WORDS, dataclasses.replace(SETTINGS, crops="all", batch_size=8))
    whole, embed = stage(IMAGE, masks), namers["clip"].image_features

    def short(images: Any) -> Any:
        if len(images) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return embed(images)

    monkeypatch.setattr(namers["clip"], "image_features", short)
    again = stage(IMAGE, masks)
    assert [f.names for f in again.masks] == [f.names for f in whole.masks]
    assert "namer: out of memory with 3 together; going on with 1" in caplog.text


def test_no_masks_have_no_names(namers: dict[str, Namer]) -> None:
    nothing = AnnotatedImage(IMAGE.shape[1], IMAGE.shape[0], ())
    assert MaskNamer(namers["clip"], WORDS, SETTINGS)(IMAGE, nothing).masks == ()


def test_ten_thousand_words(namers: dict[str, Namer]) -> None:
    words = [f"red {i}" for i in range(10_000)]
    stage = MaskNamer(namers["clip"], words, dataclasses.replace(SETTINGS, templates=("{}",)))
    (found,) = stage(IMAGE, masks_of((0, 0, 60, 60))).masks
    assert len(found.names) == 3 and set(found.names) <= set(words)


def test_bad_input_is_named(namers: dict[str, Namer], folders: dict[str, Path]) -> None:
    stage = MaskNamer(namers["clip"], WORDS, SETTINGS)
    with pytest.raises(ValueError, match=r"must be uint8\[height, width, 3\] RGB, got uint8\[80, 120\]"):
        stage(IMAGE[..., 0], masks_of((0, 0, 4, 4)))
    with pytest.raises(ValueError, match=r"RGB, got uint8\[8, 8, 4\]"):
        namers["clip"].image_features([np.zeros((8, 8, 4), np.uint8)])
    with pytest.raises(ValueError, match="masks are of an image of 120x80 px, this one has 100x80"):
        stage(np.ascontiguousarray(IMAGE[:, :100]), masks_of((0, 0, 4, 4)))
    with pytest.raises(ValueError, match="no words"):
        MaskNamer(namers["clip"], (), SETTINGS)
    with pytest.raises(WrongWeights, match="of type 'blip', but this role needs clip or siglip"):
        folder = folders["clip"].parent / "blip"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text('{"model_type": "blip"}')
        load_namer(str(folder))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"vocabulary": ()}, "vocabulary is empty"),
        ({"templates": ("a photo",)}, "each with {} where"),
        ({"top_k": 0}, "top_k=0"),
        ({"crops": "some"}, "crops='some'"),
        ({"batch_size": 1}, "batch_size=1"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        NameSettings(**changes)
