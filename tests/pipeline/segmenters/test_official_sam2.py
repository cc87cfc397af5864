"""An official file of SAM 2 against the sam2 package on the same weights."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maskmill.pipeline.segmenters import load_segmenter
from maskmill.pipeline.segmenters.base import Prompts, point_prompts
from maskmill.pipeline.segmenters.families import FamilySegmenter
from maskmill.pipeline.segmenters.official_sam2 import load_official, official_model, rename
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.weights.errors import MissingWeights, WrongWeights
from tests.pipeline.segmenters.peers import TINY_HIERA, TINY_INPUT_PX, sam2_model

IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
POINTS = np.array([[30.0, 20.0], [60.5, 70.25], [100.0, 45.0]])
BOXES = np.array([[10.0, 10.0, 60.0, 50.0], [40.0, 20.0, 110.0, 85.0]])


@pytest.fixture(scope="module")
def theirs() -> Any:
    return sam2_model()


@pytest.fixture(scope="module")
def predictor(theirs: Any) -> Any:
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its transforms are scripted
        predictor = SAM2ImagePredictor(theirs)
    sizes = [TINY_INPUT_PX // stride for stride in (4, 8, 16)]
    predictor._bb_feat_sizes = [(side, side) for side in sizes]
    predictor.set_image(IMAGE)
    return predictor


@pytest.fixture(scope="module")
def ours(theirs: Any) -> Any:
    tensors, path = dict(theirs.state_dict()), Path("tiny.pt")
    model = official_model(tensors, path, hiera=TINY_HIERA, input_px=TINY_INPUT_PX)
    return FamilySegmenter(model, device="cpu")


def test_the_embedding_and_its_maps_are_sam2s(ours: Any, predictor: Any) -> None:
    (embedding,) = ours.embed([IMAGE])
    torch.testing.assert_close(
        embedding.features_CHW, predictor._features["image_embed"][0], rtol=1e-4, atol=1e-4
    )
    for own, wanted in zip(embedding.maps, predictor._features["high_res_feats"], strict=True):
        torch.testing.assert_close(own, wanted[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("kind", ["points", "boxes"])
def test_prompts_give_sam2s_masks(ours: Any, predictor: Any, kind: str, multimask: bool) -> None:
    given, boxes = point_prompts(POINTS), None
    points, labels = torch.from_numpy(POINTS).float()[:, None], torch.ones(len(POINTS), 1).int()
    if kind == "boxes":
        given = Prompts(boxes_P4=BOXES)
        points, labels = None, None
        boxes = predictor._transforms.transform_boxes(torch.from_numpy(BOXES).float(), True, IMAGE.shape[:2])
    else:
        points = predictor._transforms.transform_coords(points, True, IMAGE.shape[:2])
    _, wanted_iou, wanted_logits = predictor._predict(
        points, labels, boxes, multimask_output=multimask, return_logits=True
    )

    prediction = ours.prompt(ours.embed([IMAGE])[0]).predict(given, multimask=multimask)
    iou_PM = prediction.predicted_iou_PM
    logits = prediction.masks(torch.ones_like(iou_PM, dtype=torch.bool)).unflatten(0, iou_PM.shape)
    torch.testing.assert_close(iou_PM, wanted_iou, rtol=1e-4, atol=1e-5)
    assert float(wanted_logits.std()) > 0.1
    reach = float(wanted_logits.abs().max())
    assert float((logits.clamp(-32, 32) - wanted_logits).abs().max()) < 1e-4 * reach


def test_a_mask_alone_refines_as_in_sam2(ours: Any, predictor: Any) -> None:
    """sam2 gives its decoder a point of padding where a prompt is a mask alone."""
    side = TINY_INPUT_PX // 4
    mask_1hw = torch.randn(1, 1, side, side)
    padding = (torch.zeros(1, 1, 2), -torch.ones(1, 1).int())
    _, wanted_iou, _ = predictor._predict(*padding, None, mask_1hw, multimask_output=True)
    prediction = ours.prompt(ours.embed([IMAGE])[0]).predict(Prompts(masks_P1HW=mask_1hw))
    torch.testing.assert_close(prediction.predicted_iou_PM, wanted_iou, rtol=1e-4, atol=1e-5)


def test_a_file_by_sam2s_own_builder_loads(tmp_path: Path) -> None:
    """hiera-tiny at its own size, saved as its authors save it; the size is recognised."""
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": sam2_model(1024, tiny=False).state_dict()}, path)
    segmenter = load_segmenter(SegmenterSettings(model="sam2", weights=str(path), device="cpu"))
    assert segmenter.image_size == 1024
    with pytest.raises(MissingWeights, match="is a file: edgetam needs a folder"):
        load_segmenter(SegmenterSettings(model="edgetam", weights=str(path), device="cpu"))


def test_names_are_mapped_as_the_head_says() -> None:
    one = torch.zeros(1)
    wanted = {
        "image_encoder.trunk.blocks.3.norm1.weight": "backbone.blocks.3.layer_norm1.weight",
        "image_encoder.trunk.blocks.3.mlp.layers.1.bias": "backbone.blocks.3.mlp.proj_out.bias",
        "image_encoder.neck.convs.2.conv.weight": "neck.convs.2.weight",
        "sam_mask_decoder.transformer.layers.0.mlp.layers.0.bias": (
            "mask_decoder.transformer.layers.0.mlp.lin1.bias"
        ),
        "sam_mask_decoder.conv_s0.bias": "mask_decoder.conv_s0.bias",
        "memory_encoder.out_proj.weight": "memory_encoder.out_proj.weight",
    }
    assert list(rename(dict.fromkeys(wanted, one))) == list(wanted.values())


def test_what_is_no_sam2_or_of_another_size_is_named() -> None:
    path = Path("some.pt")
    with pytest.raises(WrongWeights, match="no SAM 2: it looks like a maskmill student"):
        load_official({"image_encoder.stem.0.weight": torch.zeros(1)}, path, device="cpu", dtype="float32")
    trunk = {
        "image_encoder.trunk.pos_embed": torch.zeros(1, 80, 7, 7),
        "image_encoder.trunk.blocks.4.norm1.weight": torch.zeros(80),
    }
    message = "5 blocks from 80 channels on, none of SAM 2's public sizes (tiny, small"
    with pytest.raises(WrongWeights, match=re.escape(message)):
        load_official(trunk, path, device="cpu", dtype="float32")


def test_weights_that_lack_are_named(theirs: Any) -> None:
    tensors = dict(theirs.state_dict())
    del tensors["sam_mask_decoder.obj_score_token.weight"]
    with pytest.raises(WrongWeights, match=r"1 missing \(obj_score_token"):
        official_model(tensors, Path("cut.pt"), hiera=TINY_HIERA, input_px=TINY_INPUT_PX)
