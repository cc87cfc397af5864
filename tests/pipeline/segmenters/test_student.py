"""Students: real `Sam` objects, one file with weights and shape, clear words for any other file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam

from maskmill.pipeline.scenes.scenes import generate_scene
from maskmill.pipeline.segmenters.student import (
    StudentConfig,
    build_student,
    load_nano,
    load_student,
    save_student,
    stored_config,
)
from maskmill.pipeline.segmenters.student_encoder import StudentEncoder

TINY = StudentConfig(image_size=64, widths=(8, 8, 8, 32), depths=(1, 1, 1, 1), embed_dim=32, decoder_heads=2)


@pytest.fixture(scope="module")
def tiny() -> Sam:
    torch.manual_seed(0)
    return build_student(TINY)


def test_the_references_predictor_and_generator_take_a_student(tiny: Sam) -> None:
    scene = generate_scene(1, (48, 64))
    predictor = SamPredictor(tiny)
    predictor.set_image(scene.image)
    masks, iou, low = predictor.predict(np.array([[20, 20]]), np.array([1]), multimask_output=True)
    assert masks.shape == (3, 48, 64)
    assert iou.shape == (3,)
    assert low.shape == (3, 32, 32)
    generator = SamAutomaticMaskGenerator(
        tiny, points_per_side=2, pred_iou_thresh=-10, stability_score_thresh=-1
    )
    assert generator.generate(scene.image)


def test_the_embedding_has_stride_eight(tiny: Sam) -> None:
    assert tiny.image_encoder(torch.randn(2, 3, 64, 64)).shape == (2, 32, 8, 8)


def test_nothing_depends_on_the_batch(tiny: Sam) -> None:
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together = tiny.image_encoder(images)
        alone = torch.cat([tiny.image_encoder(image[None]) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    assert not any("running" in name for name, _ in tiny.named_buffers())


def test_every_position_sees_the_whole_picture() -> None:
    encoder = StudentEncoder(
        StudentConfig(widths=(8, 8, 8, 32), depths=(1, 1, 1, 1), embed_dim=32, decoder_heads=2)
    )
    image = torch.randn(1, 3, 256, 256, requires_grad=True)
    encoder(image)[0, 0, 0, 0].backward()
    assert image.grad is not None
    assert image.grad[0, :, -8:, -8:].abs().sum() > 0


@pytest.mark.parametrize("half", [False, True])
def test_a_saved_student_comes_back(tiny: Sam, tmp_path: Path, half: bool) -> None:
    save_student(tiny, TINY, tmp_path / "s.safetensors", half=half)
    back = load_student(tmp_path / "s.safetensors")
    for (name, wanted), got in zip(tiny.state_dict().items(), back.state_dict().values(), strict=True):
        assert got.dtype == torch.float32, name
        torch.testing.assert_close(got, wanted.half().float() if half else wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]


def test_a_file_cut_short_is_named(tiny: Sam, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    save_student(tiny, TINY, path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"cut\.safetensors is not a whole safetensors file"):
        load_student(path)


def test_other_files_are_named(tiny: Sam, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no student weights"):
        load_student(tmp_path / "absent.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other weights than a student's"):
        load_student(tmp_path / "other.safetensors")
    (tmp_path / "text.safetensors").write_text("hello, this is no weights file at all")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_student(tmp_path / "text.safetensors")
    wider = StudentConfig(
        image_size=64, widths=(8, 8, 8, 64), depths=(1, 1, 1, 1), embed_dim=32, decoder_heads=2
    )
    save_student(tiny, wider, tmp_path / "wrong.safetensors")
    with pytest.raises(ValueError, match="its own config asks for"):
        load_student(tmp_path / "wrong.safetensors")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"image_size": 100}, "image_size 100"),
        ({"widths": (8, 8, 8)}, "four widths"),
        ({"depths": (1, 1, 1, -1)}, "four depths"),
        ({"embed_dim": 36}, "embed_dim 36"),
        ({"decoder_heads": 7}, "7 heads"),
        ({"encoder": "vit"}, "encoder 'vit'"),
        ({"iou_knots": 1}, "iou_knots 1"),
    ],
)
def test_impossible_shapes_are_named(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        StudentConfig(**settings)  # type: ignore[arg-type]


def test_nano_segments_a_scene() -> None:
    """The shipped weights answer centre points of a few unseen scenes well."""
    from maskmill.pipeline.evaluate.points import held_back_scenes, measure_points

    nano = load_nano()
    assert 2.5e6 < sum(p.numel() for p in nano.parameters()) < 4e6
    figures = measure_points(nano, held_back_scenes(3))
    assert figures.best_miou > 0.6


def test_weights_written_before_the_second_encoder_are_read() -> None:
    """A file of version 1, written by the code of that time, gives what it gave then."""
    sam = load_student(Path(__file__).parent / "golden" / "student-1.safetensors")
    assert isinstance(sam.image_encoder, StudentEncoder)
    image = torch.linspace(-1, 1, 3 * 64 * 64).view(1, 3, 64, 64)
    with torch.no_grad():
        sparse, dense = sam.prompt_encoder((torch.tensor([[[20.0, 30.0]]]), torch.ones(1, 1)), None, None)
        logits, predicted = sam.mask_decoder(
            image_embeddings=sam.image_encoder(image),
            image_pe=sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    # that code had the weights in float32, this file in float16
    assert predicted[0].tolist() == pytest.approx([0.046657, 0.062897, 0.027068], abs=2e-4)
    assert float(logits.mean()) == pytest.approx(-0.038270, abs=2e-4)
    assert float(logits.std()) == pytest.approx(0.040254, abs=2e-4)


def test_a_pretrained_kind_of_student_and_its_curve_come_back(tmp_path: Path) -> None:
    config = StudentConfig(
        image_size=64, embed_dim=32, decoder_heads=2, encoder="efficientnet_lite0", iou_knots=5
    )
    torch.manual_seed(0)
    sam, path = build_student(config), tmp_path / "s.safetensors"
    said = torch.tensor([0.1, 0.50001, 0.50002, 0.9, 1.3])
    sam.mask_decoder.iou_prediction_head.set_curve(said, torch.tensor([0.0, 0.2, 0.4, 0.6, 0.7]))
    save_student(sam, config, path, half=True)
    back = load_student(path)
    assert isinstance(back, Sam)
    assert stored_config(path) == config
    assert torch.equal(back.mask_decoder.iou_prediction_head.said_K, said)  # float16 would join two knots
    back.load_state_dict(sam.state_dict(), strict=True)
    predictor = SamPredictor(back)
    predictor.set_image(generate_scene(1, (48, 64)).image)
    masks, iou, _ = predictor.predict(np.array([[20, 20]]), np.array([1]), multimask_output=True)
    assert masks.shape == (3, 48, 64)
    assert (iou <= 0.71).all()
