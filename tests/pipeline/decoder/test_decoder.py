"""The shared-image decoder against `segment_anything`'s own PromptEncoder and MaskDecoder, random weights."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from segment_anything.modeling import MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor

from maskmill.pipeline.decoder.decoder import ImageState, SharedImageDecoder
from maskmill.pipeline.decoder.lowrank import ImageKeys
from maskmill.pipeline.decoder.prompts import Prompts

TOLERANCE = 1e-5


class Model:
    """A random prompt encoder and mask decoder, the reference's way and ours."""

    def __init__(
        self, channels: int = 64, side: int = 8, heads: int = 4, depth: int = 2, seed: int = 0
    ) -> None:
        torch.manual_seed(seed)
        self.channels, self.side, self.pixels = channels, side, side * 16
        transformer = TwoWayTransformer(depth, channels, heads, 2 * channels)
        self.prompt_encoder = PromptEncoder(channels, (side, side), (self.pixels, self.pixels), 16).eval()
        self.mask_decoder = MaskDecoder(transformer_dim=channels, transformer=transformer).eval()
        for name, parameter in self.mask_decoder.named_parameters():
            if name.endswith("bias"):
                parameter.data = 0.3 * torch.randn_like(parameter)
            elif "norm" in name:
                parameter.data = 1 + 0.3 * torch.randn_like(parameter)
        self.embedding = torch.randn(channels, side, side)

    def points(self, prompts: int, points: int = 1) -> Prompts:
        coordinates = torch.rand(prompts, points, 2) * self.pixels
        return Prompts(coordinates, torch.randint(0, 2, (prompts, points)))

    def boxes(self, prompts: int) -> Tensor:
        corners = torch.rand(prompts, 2, 2) * self.pixels
        return torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)

    def masks(self, prompts: int) -> Tensor:
        return torch.randn(prompts, 1, 4 * self.side, 4 * self.side)

    @torch.no_grad()
    def reference(self, prompts: Prompts, *, multimask: bool) -> tuple[Tensor, Tensor]:
        """The reference's logits [P, M, h, w] and predicted IoU [P, M]."""
        points: Any = None if prompts.points_xy_PN2 is None else (prompts.points_xy_PN2, prompts.labels_PN)
        sparse, dense = self.prompt_encoder(points, prompts.boxes_xyxy_P4, prompts.masks_P1hw)
        position = self.prompt_encoder.get_dense_pe()
        logits, iou = self.mask_decoder(self.embedding[None], position, sparse, dense, multimask)
        return logits, iou

    def ours(self, **options: Any) -> tuple[SharedImageDecoder, ImageState]:
        decoder = SharedImageDecoder(self.prompt_encoder, self.mask_decoder, **options)
        return decoder, decoder.prepare(self.embedding)


def assert_same(ours: Tensor, reference: Tensor) -> None:
    assert ours.shape == reference.shape
    assert ours.dtype == torch.float32
    if len(reference):
        assert float((ours - reference).abs().max() / reference.abs().max()) < TOLERANCE


def assert_decodes(model: Model, prompts: Prompts, *, multimask: bool = True, **options: int) -> None:
    logits, iou = model.reference(prompts, multimask=multimask)
    decoder, state = model.ours(**options)
    result = decoder.predict(state, prompts, multimask=multimask)
    assert_same(result.predicted_iou_PM, iou)
    assert_same(result.masks(torch.ones_like(iou, dtype=torch.bool)), logits.flatten(0, 1))


def is_low_rank(model: Model, prompts: Prompts) -> bool:
    decoder, state = model.ours()
    forms = {isinstance(c.image, ImageKeys) for c in decoder.predict(state, prompts, multimask=True)._chunks}
    assert len(forms) == 1
    return forms.pop()


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_points_equal_the_reference(multimask: bool, depth: int) -> None:
    model = Model(depth=depth)
    prompts = model.points(5)
    assert is_low_rank(model, prompts)
    assert_decodes(model, prompts, multimask=multimask)


@pytest.mark.parametrize("chunk_numbers", [1, 3 * 8 * 8 * 16, 2**30])
def test_chunks_change_nothing(chunk_numbers: int) -> None:
    model = Model()
    assert_decodes(model, model.points(7), chunk_numbers=chunk_numbers)


def test_boxes_and_points_with_boxes_equal_the_reference() -> None:
    model = Model(channels=128)
    boxes = Prompts(boxes_xyxy_P4=model.boxes(3))
    points = model.points(3, points=2)
    both = Prompts(points.points_xy_PN2, points.labels_PN, model.boxes(3))
    for prompts in (boxes, both):
        assert is_low_rank(model, prompts)
        assert_decodes(model, prompts)


def test_padding_points_equal_the_reference() -> None:
    model = Model()
    prompts = Prompts(torch.rand(2, 2, 2) * model.pixels, torch.tensor([[1, -1], [0, 1]]))
    assert_decodes(model, prompts)


def test_many_points_take_the_dense_form_and_equal_the_reference() -> None:
    model = Model(channels=64)
    prompts = model.points(2, points=10)
    assert not is_low_rank(model, prompts)
    assert_decodes(model, prompts)


def test_mask_prompts_take_the_dense_form_and_equal_the_reference() -> None:
    model = Model()
    points = model.points(3)
    alone = Prompts(masks_P1hw=model.masks(3))
    both = Prompts(points.points_xy_PN2, points.labels_PN, masks_P1hw=alone.masks_P1hw)
    for prompts in (alone, both):
        assert not is_low_rank(model, prompts)
        assert_decodes(model, prompts)


def test_nano_shapes_equal_the_reference() -> None:
    assert_decodes(Model(channels=128, side=32, heads=4), Model(side=32).points(6))


def test_vit_shapes_equal_the_reference() -> None:
    model = Model(channels=256, side=64, heads=8)
    assert_decodes(model, model.points(3))


@pytest.mark.parametrize("boxes", [False, True])
def test_only_kept_outputs_are_made_in_order(boxes: bool) -> None:
    model = Model()
    prompts = Prompts(boxes_xyxy_P4=model.boxes(6)) if boxes else model.points(6)
    logits, _ = model.reference(prompts, multimask=True)
    decoder, state = model.ours(chunk_numbers=2 * 8 * 8 * 16)
    result = decoder.predict(state, prompts, multimask=True)
    keep = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=torch.bool)
    assert_same(result.masks(keep), logits[keep])
    assert_same(result.masks(keep), logits[keep])  # asking twice changes nothing
    assert result.masks(torch.zeros_like(keep)).shape == (0, 32, 32)


def test_one_state_serves_many_calls() -> None:
    model = Model()
    decoder, state = model.ours()
    first, second = model.points(3), model.points(4)
    results = [decoder.predict(state, prompts, multimask=True) for prompts in (first, second)]
    for prompts, result in zip((first, second), results, strict=True):
        logits, iou = model.reference(prompts, multimask=True)
        assert_same(result.predicted_iou_PM, iou)
        assert_same(result.masks(torch.ones_like(iou, dtype=torch.bool)), logits.flatten(0, 1))


def test_output_tokens_name_the_columns() -> None:
    model = Model()
    decoder, state = model.ours()
    assert decoder.predict(state, model.points(1), multimask=True).output_tokens == (1, 2, 3)
    assert decoder.predict(state, model.points(1), multimask=False).output_tokens == (0,)


def test_residual_sums_that_cancel_fall_back_to_the_dense_form(caplog: pytest.LogCaptureFixture) -> None:
    model = Model()
    with torch.no_grad():  # the first layer takes away what the image tokens all have in common
        common = 1000 * torch.randn(model.channels)
        model.embedding += common[:, None, None]
        layer: Any = model.mask_decoder.transformer.layers[0]
        layer.cross_attn_image_to_token.out_proj.bias -= common
    prompts = model.points(2)
    with caplog.at_level(logging.INFO, logger="maskmill.pipeline.decoder.decoder"):
        assert not is_low_rank(model, prompts)
    assert "cancellation" in caplog.text
    assert_decodes(model, prompts)


def test_wrong_input_is_named() -> None:
    model = Model()
    decoder, state = model.ours()
    with pytest.raises(ValueError, match=r"embeddings of \(64, 8, 8\), got \(64, 8, 9\)"):
        decoder.prepare(torch.zeros(64, 8, 9))
    with pytest.raises(ValueError, match="no prompts"):
        decoder.predict(state, model.points(0), multimask=True)
    with pytest.raises(ValueError, match=r"bool\(2, 3\), got torch.bool\(2, 1\)"):
        decoder.predict(state, model.points(2), multimask=True).masks(torch.ones(2, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="together"):
        Prompts(points_xy_PN2=torch.zeros(1, 1, 2))
    with pytest.raises(ValueError, match="one count"):
        Prompts(torch.zeros(2, 1, 2), torch.zeros(2, 1), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="one count"):
        Prompts()
    with pytest.raises(ValueError, match="shape"):
        Prompts(torch.zeros(2, 1, 2), torch.zeros(2, 2))


def _relative_error(ours: Tensor, exact: Tensor) -> float:
    return float((ours - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@pytest.mark.parametrize("shapes", [{"channels": 64}, {"channels": 128, "side": 32}])
@torch.no_grad()
def test_bfloat16_is_as_close_as_the_reference_in_bfloat16(shapes: dict[str, int]) -> None:
    model = Model(**shapes)
    prompts = model.points(6)
    logits, iou = model.reference(prompts, multimask=True)
    decoder, state = model.ours(dtype=torch.bfloat16)
    result = decoder.predict(state, prompts, multimask=True)
    ours = result.masks(torch.ones_like(iou, dtype=torch.bool))
    assert isinstance(result._chunks[0].image, ImageKeys)
    assert result.predicted_iou_PM.dtype == ours.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        theirs, their_iou = model.reference(prompts, multimask=True)
    assert 1e-5 < _relative_error(ours, logits.flatten(0, 1)) < _relative_error(theirs.float(), logits)
    assert _relative_error(result.predicted_iou_PM, iou) < _relative_error(their_iou.float(), iou)


@torch.no_grad()
def test_bfloat16_serves_boxes_masks_and_many_points() -> None:
    model = Model(channels=64)
    points = model.points(3, points=2)
    for prompts in (
        Prompts(boxes_xyxy_P4=model.boxes(3)),
        Prompts(masks_P1hw=model.masks(3)),
        Prompts(points.points_xy_PN2, points.labels_PN, masks_P1hw=model.masks(3)),
        model.points(2, points=10),
    ):
        logits, iou = model.reference(prompts, multimask=False)
        decoder, state = model.ours(dtype=torch.bfloat16)
        result = decoder.predict(state, prompts, multimask=False)
        assert _relative_error(result.predicted_iou_PM, iou) < 0.01
        ours = result.masks(torch.ones_like(iou, dtype=torch.bool))
        assert _relative_error(ours, logits.flatten(0, 1)) < 0.03


def test_other_number_formats_are_refused() -> None:
    with pytest.raises(ValueError, match=r"float32 or bfloat16, not in torch\.float16"):
        Model().ours(dtype=torch.float16)
