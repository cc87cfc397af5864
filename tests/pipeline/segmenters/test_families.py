"""Each family against transformers' own class on the same folder, written by `save_pretrained`."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from maskmill.pipeline.gpu.encoder import DeviceEncoder
from maskmill.pipeline.gpu.torch_ops import TorchOps
from maskmill.pipeline.machine import formats
from maskmill.pipeline.masks.automask import AutomaticMasks
from maskmill.pipeline.masks.boxes import masks_of_boxes
from maskmill.pipeline.rle import decode
from maskmill.pipeline.segmenters import load_segmenter, weights_identity
from maskmill.pipeline.segmenters.base import Prompts, point_prompts
from maskmill.pipeline.segmenters.families import FamilySegmenter, SamHqEncoder
from maskmill.pipeline.segmenters.from_transformers import convert_image_encoder
from maskmill.pipeline.segmenters.sam import SamSegmenter
from maskmill.pipeline.settings import MaskSettings, SegmenterSettings
from maskmill.pipeline.weights.errors import MissingWeights, WrongWeights

SIDE = 128
DECODER = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
PADDED = {"size": {"longest_edge": SIDE}, "pad_size": {"height": SIDE, "width": SIDE}}
SQUARE = {"size": {"height": SIDE, "width": SIDE}}


def _sam(name: str) -> Any:
    vision = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_pos_feats": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
        "window_size": 3,
        "global_attn_indexes": [1, 2],
        "mlp_dim": 64,
    }
    prompt = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "image_embedding_size": SIDE // 16}
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision,
        prompt_encoder_config=prompt,
        mask_decoder_config={**DECODER, **({"vit_dim": 32} if name == "SamHQ" else {})},
    )
    return getattr(transformers, f"{name}Model")(config)


def _of_sam2_kind(name: str, vision: Any) -> Any:
    config = getattr(transformers, f"{name}Config")(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": 32, "image_size": SIDE, "patch_size": 16},
        mask_decoder_config=DECODER,
    )
    return getattr(transformers, f"{name}Model")(config)


SIZES = [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2]


def _sam2() -> Any:
    backbone = {
        "hidden_size": 16,
        "num_attention_heads": 1,
        "image_size": [SIDE, SIDE],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [16, 32, 64, 128],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [8, 4, 8, 4],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
    }
    vision = transformers.Sam2VisionConfig(
        backbone_config=transformers.Sam2HieraDetConfig(**backbone),
        backbone_channel_list=[128, 64, 32, 16],
        backbone_feature_sizes=SIZES,
        fpn_hidden_size=32,
    )
    return _of_sam2_kind("Sam2", vision)


def _edgetam() -> Any:
    backbone = transformers.TimmWrapperConfig(
        architecture="repvit_m0_9",
        model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
        do_pooling=False,
    )
    vision = transformers.EdgeTamVisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[384, 192, 96, 48],
        backbone_feature_sizes=SIZES,
        fpn_hidden_size=32,
    )
    return _of_sam2_kind("EdgeTam", vision)


def _sam3() -> Any:
    backbone = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 16,
        "window_size": 4,
        "global_attn_indexes": [1],
        "pretrain_image_size": SIDE,
    }
    vision = transformers.Sam3VisionConfig(
        backbone_config=transformers.Sam3ViTConfig(**backbone),
        fpn_hidden_size=32,
        backbone_feature_sizes=SIZES,
    )
    return _of_sam2_kind("Sam3Tracker", vision)


MAKERS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "sam": (lambda: _sam("Sam"), lambda: transformers.SamImageProcessor(**PADDED)),
    "sam_hq": (lambda: _sam("SamHQ"), lambda: transformers.SamImageProcessor(**PADDED)),
    "sam2": (_sam2, lambda: transformers.Sam2ImageProcessor(**SQUARE)),
    "edgetam": (_edgetam, lambda: transformers.Sam2ImageProcessor(**SQUARE)),
    "sam3": (_sam3, lambda: transformers.Sam3ImageProcessor(**SQUARE)),
}


class Folders:
    """A folder a family, made when asked for, with random weights large enough that masks have shapes."""

    def __init__(self, make_folder: Callable[[str], Path]) -> None:
        self._make_folder = make_folder
        self._made: dict[str, Path] = {}

    def __getitem__(self, name: str) -> Path:
        if name not in self._made:
            self._made[name] = self._save(name)
        return self._made[name]

    def _save(self, name: str) -> Path:
        make_model, make_processor = MAKERS[name]
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = make_model().eval()
            for parameter in model.mask_decoder.parameters():
                parameter.data += 0.2 * torch.randn_like(parameter)
            if hasattr(model, "no_memory_embedding"):
                model.no_memory_embedding.data.normal_()
        folder = self._make_folder(name)
        model.save_pretrained(folder)
        make_processor().save_pretrained(folder)
        return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path_factory.mktemp)


@pytest.fixture(autouse=True)
def _sam_hq_as_its_authors_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5.23 drops the image tokens that the decoder's transformer gives: families.py tells."""
    from transformers.models.sam_hq import modeling_sam_hq

    source = textwrap.dedent(inspect.getsource(modeling_sam_hq.SamHQMaskDecoder.forward))
    space = dict(vars(modeling_sam_hq))
    exec(source.replace("iou_token_out = self.transformer(", "image_embeddings = self.transformer("), space)
    monkeypatch.setattr(modeling_sam_hq.SamHQMaskDecoder, "forward", space["forward"])


def _segmenter(folder: Path, name: str, **more: Any) -> Any:
    return load_segmenter(SegmenterSettings(model=name, weights=str(folder), device="cpu", **more))


def _theirs(folder: Path, name: str) -> tuple[Any, Any]:
    classes = {"sam": "Sam", "sam_hq": "SamHQ", "sam2": "Sam2", "edgetam": "EdgeTam", "sam3": "Sam3Tracker"}
    model = getattr(transformers, f"{classes[name]}Model").from_pretrained(folder).eval()
    return model, MAKERS[name][1]()


def _scaled(points: Any, embedding: Any) -> torch.Tensor:
    scale = np.array([embedding.input_width / embedding.width, embedding.input_height / embedding.height])
    return torch.from_numpy(points * np.tile(scale, points.shape[-1] // 2)).float()[None]


IMAGE = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
POINTS = np.array([[30.0, 20.0], [60.5, 70.25], [100.0, 45.0]])
BOXES = np.array([[10.0, 10.0, 60.0, 50.0], [40.0, 20.0, 110.0, 85.0]])


@pytest.mark.parametrize("name", list(MAKERS))
def test_points_give_transformers_masks(folders: Folders, name: str) -> None:
    segmenter = _segmenter(folders[name], name)
    (embedding,) = segmenter.embed([IMAGE])
    prediction = segmenter.prompt(embedding).predict(point_prompts(POINTS))
    iou_PM = prediction.predicted_iou_PM
    logits_PMhw = prediction.masks(torch.ones_like(iou_PM, dtype=torch.bool)).unflatten(0, iou_PM.shape)

    model, processor = _theirs(folders[name], name)
    given = {"input_points": _scaled(POINTS, embedding)[:, :, None], "multimask_output": True}
    if name == "sam":  # resized as segment_anything does: compare on the same embedding
        given["image_embeddings"] = embedding.features_CHW[None]
    else:
        given["pixel_values"] = processor(images=[IMAGE], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        wanted = model(**given)
    theirs_iou, theirs_logits = wanted.iou_scores[0], wanted.pred_masks[0]
    if name == "sam_hq":  # transformers sorts its outputs
        order_PM = iou_PM.argsort(dim=1, descending=True)
        iou_PM = iou_PM.gather(1, order_PM)
        logits_PMhw = torch.stack(
            [logits[order] for logits, order in zip(logits_PMhw, order_PM, strict=True)]
        )
    torch.testing.assert_close(iou_PM, theirs_iou, rtol=1e-4, atol=1e-4)
    scale = theirs_logits.abs().max()
    assert (logits_PMhw - theirs_logits).abs().max() < 1e-3 * scale
    assert theirs_logits.std() > 0.01


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "edgetam"])  # its encoder is slow
def test_boxes_give_transformers_masks_at_the_images_size(folders: Folders, name: str) -> None:
    segmenter = _segmenter(folders[name], name)
    (embedding,) = segmenter.embed([IMAGE])
    found = masks_of_boxes(segmenter.prompt(embedding), BOXES, mask_threshold=0.0)

    model, processor = _theirs(folders[name], name)
    given = {"input_boxes": _scaled(BOXES, embedding), "multimask_output": False}
    inputs = processor(images=[IMAGE], return_tensors="pt")
    if name == "sam":
        given["image_embeddings"] = embedding.features_CHW[None]
    else:
        given["pixel_values"] = inputs["pixel_values"]
    with torch.no_grad():
        wanted = model(**given)
    sizes = [inputs["original_sizes"]] + (
        [inputs["reshaped_input_sizes"]] if name in ("sam", "sam_hq") else []
    )
    masks = processor.post_process_masks(wanted.pred_masks, *sizes)[0]
    for annotation, mask, iou in zip(found, masks, wanted.iou_scores[0], strict=True):
        assert np.mean(decode(annotation.segmentation) != mask[0].numpy()) < 2e-3
        assert annotation.predicted_iou == pytest.approx(float(iou[0]), abs=1e-4)


@pytest.mark.parametrize("name", ["sam_hq", "sam2"])
def test_kept_masks_come_in_order_and_prompts_in_chunks(
    folders: Folders, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = _segmenter(folders[name], name)
    image = segmenter.prompt(segmenter.embed([IMAGE])[0])
    whole = image.predict(point_prompts(POINTS))
    all_PM = torch.ones_like(whole.predicted_iou_PM, dtype=torch.bool)
    keep_PM = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    monkeypatch.setattr(image._decoder, "_chunk_numbers", 1)
    cut = image.predict(point_prompts(POINTS))
    torch.testing.assert_close(cut.predicted_iou_PM, whole.predicted_iou_PM, rtol=1e-4, atol=1e-5)
    wanted = whole.masks(all_PM).unflatten(0, all_PM.shape)[keep_PM]
    torch.testing.assert_close(cut.masks(keep_PM), wanted, rtol=1e-3, atol=1e-3)
    assert cut.masks(torch.zeros_like(keep_PM)).shape == (0, *wanted.shape[1:])
    with pytest.raises(ValueError, match="keep_PM must be bool"):
        cut.masks(keep_PM[:1])


@pytest.mark.parametrize("name", ["sam_hq", "sam2"])
def test_mask_prompts_refine(folders: Folders, name: str) -> None:
    segmenter = _segmenter(folders[name], name)
    (embedding,) = segmenter.embed([IMAGE])
    image = segmenter.prompt(embedding)
    first = image.predict(point_prompts(POINTS[:1]), multimask=False)
    logits = first.masks(torch.ones(1, 1, dtype=torch.bool))
    prompts = Prompts(points_PK2=POINTS[:1, None], labels_PK=np.ones((1, 1), int), masks_P1HW=logits[:, None])
    again = image.predict(prompts, multimask=False)
    model, processor = _theirs(folders[name], name)
    pixels = processor(images=[IMAGE], return_tensors="pt")["pixel_values"]
    points = _scaled(POINTS[:1], embedding)[:, :, None]
    with torch.no_grad():
        wanted = model(
            pixel_values=pixels, input_points=points, input_masks=logits[:, None], multimask_output=False
        )
    torch.testing.assert_close(again.predicted_iou_PM, wanted.iou_scores[0], rtol=1e-4, atol=1e-4)


def test_sam_of_transformers_is_segment_anythings(folders: Folders) -> None:
    segmenter = _segmenter(folders["sam"], "sam")
    assert isinstance(segmenter, SamSegmenter)
    model, _ = _theirs(folders["sam"], "sam")
    pixels = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        torch.testing.assert_close(
            segmenter._encoder(pixels), model.vision_encoder(pixels)[0], rtol=1e-4, atol=1e-4
        )


def test_sam_hqs_encoder_is_transformers_own(folders: Folders) -> None:
    """Embedding and early features, by the host's means and by a device's."""
    model, _ = _theirs(folders["sam_hq"], "sam_hq")
    pixels = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        wanted = model.vision_encoder(pixels)
        encoder = SamHqEncoder(convert_image_encoder(model.vision_encoder, folders["sam_hq"]), torch.float32)
        for _ in range(2):
            found = encoder(pixels)
            torch.testing.assert_close(found.features_BCHW, wanted.last_hidden_state, rtol=1e-4, atol=1e-4)
            early = wanted.intermediate_embeddings[0].permute(0, 3, 1, 2)
            torch.testing.assert_close(found.maps[0], early, rtol=1e-4, atol=1e-5)
            encoder.run_on(TorchOps())


def test_sam_hqs_encoder_goes_a_devices_way_where_grids_do(folders: Folders) -> None:
    segmenter = _segmenter(folders["sam_hq"], "sam_hq")
    (wanted,) = segmenter.embed([IMAGE])
    batched = FamilySegmenter(segmenter._model, device="cpu", batched=True)
    assert isinstance(segmenter._model.encoder._fused, DeviceEncoder)
    (found,) = batched.embed([IMAGE])
    torch.testing.assert_close(found.features_CHW, wanted.features_CHW, rtol=1e-4, atol=1e-4)


def test_settings_that_sam_hqs_encoder_has_not_are_told(folders: Folders) -> None:
    model, _ = _theirs(folders["sam_hq"], "sam_hq")
    config = model.vision_encoder.config
    config.hidden_act = "relu"
    with pytest.raises(WrongWeights, match=r"vision_config.hidden_act='relu'.* use 'gelu'"):
        convert_image_encoder(model.vision_encoder, folders["sam_hq"])
    config.hidden_act, config.global_attn_indexes = "gelu", []
    with pytest.raises(WrongWeights, match=r"vision_config.global_attn_indexes is empty"):
        convert_image_encoder(model.vision_encoder, folders["sam_hq"])


@pytest.mark.parametrize("name", ["sam_hq", "sam2"])
def test_bfloat16_stays_near(
    folders: Folders, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "measured_ratio", lambda dtype: 2.0)  # however slow this CPU is in it
    monkeypatch.setenv("MASKMILL_CACHE", str(tmp_path))
    (exact,) = _segmenter(folders[name], name).embed([IMAGE])
    (coarse,) = _segmenter(folders[name], name, dtype="bfloat16").embed([IMAGE])
    assert coarse.features_CHW.dtype == torch.float32
    difference = (exact.features_CHW - coarse.features_CHW).abs().mean() / exact.features_CHW.abs().mean()
    assert 0 < difference < 0.1


def test_grid_masks_of_a_family_that_stretches(folders: Folders) -> None:
    """The grid stage takes it as any segmenter: masks of the image's own size."""
    settings = MaskSettings(points_per_side=2, predicted_iou=0.0, stability=0.0, box_nms=1.0)
    (found,) = AutomaticMasks(_segmenter(folders["sam2"], "sam2"), settings)([IMAGE])
    assert found.annotations
    for annotation in found.annotations:
        mask = decode(annotation.segmentation)
        assert mask.shape == IMAGE.shape[:2] and mask.sum() == annotation.area_px


def test_another_familys_folder_is_named(folders: Folders) -> None:
    with pytest.raises(WrongWeights, match="type 'sam_hq', but this role needs sam2"):
        _segmenter(folders["sam_hq"], "sam2")
    with pytest.raises(WrongWeights, match="does not fit vit_b"):
        _segmenter(folders["sam"], "vit_b")
    with pytest.raises(MissingWeights, match="is a folder: name the file in it"):
        _segmenter(folders["sam"], "nano")
    with pytest.raises(MissingWeights, match=r"is a file: sam_hq needs a folder.*sam-hq-vit-base"):
        _segmenter(folders["sam_hq"] / "model.safetensors", "sam_hq")
    with pytest.raises(WrongWeights, match="no SAM 2: it looks like SAM saved by transformers"):
        _segmenter(folders["sam2"] / "model.safetensors", "sam2")


def test_a_folder_without_its_processor_is_named(folders: Folders, tmp_path: Path) -> None:
    for path in folders["sam2"].iterdir():
        if "processor" not in path.name:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(MissingWeights, match="not what prepares its inputs"):
        _segmenter(tmp_path, "sam2")


def test_identity_of_a_folder_is_of_what_is_read(folders: Folders, tmp_path: Path) -> None:
    for path in folders["sam2"].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "README.md").write_text("not read")
    same = SegmenterSettings(model="sam2", weights=str(folders["sam2"]))
    copy = SegmenterSettings(model="sam2", weights=str(tmp_path))
    assert weights_identity(same) == weights_identity(copy)
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + " ")
    assert weights_identity(same) != weights_identity(copy)
