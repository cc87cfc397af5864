from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor, sam_model_registry

from maskmill.pipeline.segmenters import load_segmenter
from maskmill.pipeline.segmenters.base import Prompts, point_prompts
from maskmill.pipeline.segmenters.sam import SamSegmenter, build_sam
from maskmill.pipeline.settings import SegmenterSettings


def _image(height: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(64, 200), (128, 128), (97, 33), (401, 300)])
def test_embedding_and_masks_equal_the_predictors(tiny_sam: Any, size: tuple[int, int]) -> None:
    image = _image(*size)
    predictor = SamPredictor(tiny_sam)
    predictor.set_image(image)
    segmenter = SamSegmenter(tiny_sam, device="cpu")
    (embedding,) = segmenter.embed([image])
    assert (embedding.height, embedding.width) == size
    assert (embedding.input_height, embedding.input_width) == predictor.input_size
    assert torch.allclose(embedding.features_CHW, predictor.features[0], atol=1e-5)

    points_xy_P2 = np.array([[3.2, 5.1], [20.0, 50.5]])
    scaled = torch.as_tensor(predictor.transform.apply_coords(points_xy_P2, size))[:, None]
    _, iou_PM, logits_PMHW = predictor.predict_torch(scaled, torch.ones(2, 1, dtype=torch.int))
    prediction = segmenter.prompt(embedding).predict(point_prompts(points_xy_P2))
    assert torch.allclose(prediction.predicted_iou_PM, iou_PM, rtol=1e-4, atol=1e-4)
    keep_PM = torch.tensor([[True, False, True], [False, True, False]])
    logits_NHW = prediction.masks(keep_PM)
    wanted_NHW = logits_PMHW[keep_PM]
    assert (logits_NHW - wanted_NHW).abs().max() < 1e-3 * wanted_NHW.abs().max()


def test_boxes_and_labels_are_scaled_too(tiny_sam: Any) -> None:
    image = _image(50, 200)
    predictor = SamPredictor(tiny_sam)
    predictor.set_image(image)
    box, point = np.array([10.0, 5.0, 90.0, 40.0]), np.array([[40.0, 20.0]])
    _, scores, _ = predictor.predict(point, np.array([0]), box=box, multimask_output=False)
    segmenter = SamSegmenter(tiny_sam, device="cpu")
    prompts = Prompts(points_PK2=point[None], labels_PK=np.array([[0]]), boxes_P4=box[None])
    prediction = segmenter.prompt(segmenter.embed([image])[0]).predict(prompts, multimask=False)
    assert prediction.predicted_iou_PM.numpy() == pytest.approx(scores[None], abs=1e-4)


def test_images_of_any_size_share_a_batch(tiny_sam: Any) -> None:
    segmenter = SamSegmenter(tiny_sam, device="cpu")
    images = [_image(40, 60, 1), _image(300, 100, 2), _image(128, 128, 3)]
    together = segmenter.embed(images)
    for image, embedding in zip(images, together, strict=True):
        (alone,) = segmenter.embed([image])
        assert torch.allclose(embedding.features_CHW, alone.features_CHW, atol=1e-5)
    assert segmenter.embed([]) == []


@pytest.mark.parametrize(
    "image",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)],
)
def test_other_arrays_are_refused(tiny_sam: Any, image: Any) -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        SamSegmenter(tiny_sam, device="cpu").embed([image])


def test_a_line_of_pixels_is_refused(tiny_sam: Any) -> None:
    with pytest.raises(ValueError, match="thinner than a pixel"):
        SamSegmenter(tiny_sam, device="cpu").embed([_image(2, 2000)])


def test_bfloat16_stays_near(make_tiny_sam: Callable[..., Any]) -> None:
    image = _image(100, 128)
    (exact,) = SamSegmenter(make_tiny_sam(), device="cpu").embed([image])
    (coarse,) = SamSegmenter(make_tiny_sam(), device="cpu", dtype="bfloat16").embed([image])
    assert coarse.features_CHW.dtype == torch.float32
    difference = (exact.features_CHW - coarse.features_CHW).abs().mean() / exact.features_CHW.abs().mean()
    assert 0 < difference < 0.05


def test_a_checkpoint_gives_its_model(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sam = sam_model_registry["vit_b"]()
    path = tmp_path / "vit_b.pth"
    torch.save(sam.state_dict(), path)
    built = build_sam("vit_b", torch.load(path, weights_only=True), path)
    assert not any(tensor.is_meta for tensor in (*built.parameters(), *built.buffers()))
    for (name, ours), (_, theirs) in zip(built.named_buffers(), sam.named_buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    for (name, ours), (_, theirs) in zip(built.named_parameters(), sam.named_parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    threads = torch.get_num_threads()
    segmenter = load_segmenter(SegmenterSettings(model="vit_b", weights=str(path), threads=1))
    assert (segmenter.image_size, torch.get_num_threads()) == (1024, 1)
    torch.set_num_threads(threads)
    with pytest.raises(ValueError, match=r"does not fit vit_l.*looks like segment_anything's vit_b"):
        load_segmenter(SegmenterSettings(model="vit_l", weights=str(path)))


def test_prompts_are_one_length_and_not_empty() -> None:
    with pytest.raises(ValueError, match="one length for all"):
        Prompts(boxes_P4=np.zeros((2, 4)), points_PK2=np.zeros((3, 1, 2)), labels_PK=np.ones((3, 1), int))
    with pytest.raises(ValueError, match="one length"):
        Prompts()
    with pytest.raises(ValueError, match="give both or neither"):
        Prompts(points_PK2=np.zeros((3, 1, 2)))
    assert len(Prompts(boxes_P4=np.zeros((2, 4)))) == 2
