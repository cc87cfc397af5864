"""The recipe against a plain restatement of the paper's, written from its text with segment_anything's own
modules, one prompt at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam
from torch.nn import functional as F

from maskmill.pipeline.segmenters.student import StudentConfig, build_student
from maskmill.pipeline.settings.train import TrainSettings
from maskmill.pipeline.train import recipe, tune
from maskmill.pipeline.train.asked import TrainImage, first_prompts, rounds_of
from maskmill.pipeline.train.images import Labelled, teaching, train_image
from maskmill.pipeline.train.prompts import BOX_START, PAD
from maskmill.pipeline.train.recipe import image_loss, mask_losses

SMALL = StudentConfig(
    image_size=64,
    widths=(8, 8, 16, 16),
    depths=(1, 1, 1, 1),
    embed_dim=32,
    decoder_heads=2,
    decoder_mlp_dim=32,
)
SETTINGS = TrainSettings(masks=3, points=2, bare_rounds=2, min_area_px=1, flips=False)


def student(seed: int = 0) -> Sam:
    torch.manual_seed(seed)
    return build_student(SMALL)


def picture(*, complete: bool = False, number: int = 0, told: bool = False) -> TrainImage:
    draw = np.random.default_rng(5)
    masks = np.zeros((4, 48, 64), np.bool_)
    masks[0, 4:30, 4:30] = masks[1, 20:44, 30:60] = masks[2, 8:20, 8:20] = masks[3, 0:6, 40:60] = True
    given = Labelled(
        "a",
        draw.integers(0, 255, (48, 64, 3)).astype(np.uint8),
        masks,
        np.array([0.9, 0.5, 0.7, 0.8], np.float32),
        np.array([True, False, False, False]),
        complete,
        right_N=np.array([0.2, 0.6, 0.3, 0.9], np.float32) if told else None,
    )
    made = train_image(given, number, 64, SETTINGS)
    assert made is not None
    return made


def plain_loss(sam: Sam, image: TrainImage, settings: TrainSettings) -> torch.Tensor:
    """The paper's training algorithm for one image; a low-resolution cell is its share of the mask."""
    rng = np.random.default_rng([settings.seed, image.number, 1])
    prompts = first_prompts(rng, image, settings)
    kinds = rounds_of(rng, settings)
    embedding = sam.image_encoder(torch.from_numpy(image.image_3SS)[None])
    stride = 64 // (4 * embedding.shape[-1])
    truth = F.avg_pool2d(torch.from_numpy(image.masks_NSS).float()[:, None], stride)[:, 0]
    inside = torch.zeros(64 // stride, 64 // stride)
    inside[: image.height // stride, : image.width // stride] = 1

    def ask(points: list[tuple[float, float]], labels: list[int], box: object, prior: object) -> object:
        sparse, dense = sam.prompt_encoder(
            points=(torch.tensor([points]), torch.tensor([labels])) if points else None,
            boxes=None if box is None else torch.tensor([box]).reshape(1, 4),
            masks=prior,
        )
        return sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense)

    def loss_of(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        p = torch.sigmoid(logits)
        cross = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        right = p * target + (1 - p) * (1 - target)
        focal = ((1 - right) ** 2 * cross * inside).sum() / inside.sum()
        dice = 1 - (2 * (p * target * inside).sum() + 1) / (((p + target) * inside).sum() + 1)
        return 20 * focal + dice

    def iou_of(logits: torch.Tensor, target: torch.Tensor) -> float:
        answer, wanted = (logits > 0) & (inside > 0), (target > 0.5) & (inside > 0)
        return float((answer & wanted).sum() / max(1, int((answer | wanted).sum())))

    rounds: list[list[torch.Tensor]] = [[] for _ in range(1 + len(kinds))]
    state = []
    for p, target in enumerate(prompts.target_P):
        is_box = prompts.labels_PT[p, 0] == BOX_START
        box = prompts.coords_PT2[p].reshape(4).tolist() if is_box else None
        points = [] if is_box else [tuple(prompts.coords_PT2[p, 0].tolist())]
        labels = [] if is_box else [1]
        logits, predicted = ask(points, labels, box, None)
        losses = torch.stack([loss_of(logits[0, m], truth[target]) for m in (1, 2, 3)])
        best = int(losses.argmin())
        wanted = iou_of(logits[0, 1 + best], truth[target])
        weight = float(image.weight_N[target])
        right = 1.0 if image.right_N is None else float(image.right_N[target])
        rounds[0].append(weight * (losses[best] + (predicted[0, 1 + best] - wanted * right) ** 2))
        chosen = 1 + int(predicted[0, 1:].argmax())
        state.append([points, labels, box, logits[0, chosen].detach(), target, weight, right])
    for r, with_point in enumerate(kinds):
        for one in state:
            points, labels, box, before, target, weight, right = one
            if with_point:
                wrong = (((before > 0) != (truth[target] > 0.5)) & (inside > 0)).flatten().numpy()
                hit = truth[target].flatten().numpy() > 0.5
                among = np.flatnonzero(wrong if wrong.any() else hit)
                cell = int(among[rng.integers(len(among))])
                side = truth.shape[-1]
                points.append(
                    tuple((np.array([cell % side, cell // side]) * stride + (stride - 1) / 2).tolist())
                )
                labels.append(int(hit[cell]))
            logits, predicted = ask(points, labels, box, before[None, None])
            error = predicted[0, 0] - iou_of(logits[0, 0], truth[target]) * right
            rounds[1 + r].append(weight * (loss_of(logits[0, 0], truth[target]) + error**2))
            one[3] = logits[0, 0].detach()
    return torch.stack([torch.stack(some).mean() for some in rounds]).mean()


@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("number", range(4))
def test_a_step_s_loss_is_the_paper_s(number: int, told: bool) -> None:
    """With verdicts, what predicted IoU should say of an automatic mask is less; of a person's it stays."""
    sam, image = student(), picture(number=number, told=told)
    ours = image_loss(sam, sam.image_encoder(torch.from_numpy(image.image_3SS)[None]), image, SETTINGS)
    assert float(ours.loss.detach()) == pytest.approx(
        float(plain_loss(sam, image, SETTINGS).detach()), abs=1e-5
    )


def test_eleven_rounds_with_two_bare_ones_the_last_among_them() -> None:
    full = TrainSettings()
    seen = {tuple(rounds_of(np.random.default_rng(seed), full)) for seed in range(40)}
    assert all(len(kinds) == 10 and sum(kinds) == 8 and not kinds[-1] for kinds in seen)
    assert len(seen) > 4


@pytest.mark.parametrize("encoder", ["frozen", "lora", "all"])
def test_gradients_reach_only_what_should_train(encoder: str) -> None:
    sam, image = student(), picture()
    settings = dataclasses.replace(SETTINGS, encoder=encoder, lora_rank=2)
    tune.prepare(sam, settings)
    image_loss(
        sam, sam.image_encoder(torch.from_numpy(image.image_3SS)[None]), image, settings
    ).loss.backward()
    reached = {name for name, one in sam.named_parameters() if one.grad is not None and one.grad.any()}
    inside = {name for name in reached if name.startswith("image_encoder.")}
    assert any(name.startswith("mask_decoder.") for name in reached)
    assert any(name.startswith("prompt_encoder.mask_downscaling") for name in reached)
    if encoder == "frozen":
        assert not inside
    elif encoder == "lora":
        assert inside and all(name.endswith(".up") for name in inside)  # `down` follows once `up` is not zero
    else:
        assert any("stem" in name for name in inside) and any("stage32" in name for name in inside)


def test_low_rank_changes_fold_into_the_model_s_own_weights() -> None:
    sam, plain = student(), student()
    tune.prepare(sam, dataclasses.replace(SETTINGS, encoder="lora", lora_rank=2))
    pixels = torch.rand(1, 3, 64, 64)
    assert torch.equal(sam.eval().image_encoder(pixels), plain.image_encoder(pixels))
    for name, one in tune.learning(sam):
        if name.endswith(".up"):
            torch.nn.init.normal_(one)
    plain.load_state_dict(tune.merged_state(sam))
    torch.testing.assert_close(plain.image_encoder(pixels), sam.image_encoder(pixels), rtol=1e-4, atol=1e-5)


def test_what_nobody_labelled_is_nobody_s_mistake() -> None:
    """On an unfinished image predicted IoU of outputs that aren't the best one gets no gradient."""
    sam = student()
    for complete, touched in ((False, 1), (True, 3)):
        image = picture(complete=complete)
        settings = dataclasses.replace(SETTINGS, points=0, bare_rounds=0, masks=1)
        sam.zero_grad()
        embedding = sam.image_encoder(torch.from_numpy(image.image_3SS)[None])
        image_loss(sam, embedding, image, settings).loss.backward()
        last = sam.mask_decoder.iou_prediction_head.layers[-1]
        assert int((last.bias.grad[1:] != 0).sum()) == touched


def test_crowds_count_nowhere() -> None:
    logits = torch.zeros(1, 1, 4)
    target, counts = torch.tensor([[1.0, 0.0, 1.0, 0.0]]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    other = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    assert torch.equal(mask_losses(logits, target, counts, None), mask_losses(logits, other, counts, None))


def test_an_image_s_loss_is_its_number_s_alone() -> None:
    sam, image = student(), picture(number=7)
    embedding = sam.image_encoder(torch.from_numpy(image.image_3SS)[None])
    first, again = (float(image_loss(sam, embedding, image, SETTINGS).loss.detach()) for _ in range(2))
    other = float(image_loss(sam, embedding, dataclasses.replace(image, number=8), SETTINGS).loss.detach())
    assert first == again != other


def test_masks_that_cannot_teach_are_left_out_and_counted() -> None:
    from collections import Counter

    settings = TrainSettings(min_area_px=4)
    assert [teaching(a, 100, settings) for a in (0, 3, 50, 91)] == ["empty", "too_small", None, "too_large"]
    masks = np.zeros((2, 20, 20), np.bool_)
    masks[1] = True
    given = Labelled(
        "a", np.zeros((20, 20, 3), np.uint8), masks, np.ones(2, np.float32), np.zeros(2, np.bool_)
    )
    counted: Counter[str] = Counter()
    assert train_image(given, 0, 64, settings, counted) is None
    assert counted["empty"] == counted["too_large"] == 1


def test_a_person_s_masks_weigh_most() -> None:
    image = picture()
    assert image.weight_N[0] == 1.0 and image.weight_N[1:].max() < 1.0
    one = dataclasses.replace(SETTINGS, masks=1)
    drawn = [int(first_prompts(np.random.default_rng(s), image, one).target_P[0]) for s in range(60)]
    assert drawn.count(0) > drawn.count(1)


def test_layers_below_learn_slower_and_rates_fall() -> None:
    settings = TrainSettings(steps=100, warmup=10, lr=1e-3, layer_decay=0.5, lr_drops="0.5,0.9")
    rates = [tune.learning_rate(settings, step) for step in (0, 9, 49, 50, 90)]
    assert rates == pytest.approx([1e-4, 1e-3, 1e-3, 1e-4, 1e-5])
    optimiser = tune.optimiser_of(student(), settings)
    assert sorted({group["scale"] for group in optimiser.param_groups}) == [
        0.5**k for k in (5, 4, 3, 2, 1, 0)
    ]


def test_settings_out_of_range_are_named() -> None:
    for wrong in ({"steps": 0}, {"encoder": "half"}, {"lr_drops": "x"}, {"focal_alpha": 1.0}, {"clip": 0.0}):
        with pytest.raises(ValueError, match=str(next(iter(wrong)))):
            TrainSettings(**wrong)  # type: ignore[arg-type]


def test_first_prompts_are_points_and_boxes_alike() -> None:
    image, settings = picture(), dataclasses.replace(SETTINGS, masks=4)
    kinds = [
        label
        for seed in range(50)
        for label in first_prompts(np.random.default_rng(seed), image, settings).labels_PT[:, 0]
    ]
    assert 0.35 < np.mean([kind == BOX_START for kind in kinds]) < 0.65
    assert recipe.PAD == PAD


def test_activations_made_again_change_nothing() -> None:
    image, grads = picture(), []
    for again in (False, True):
        sam, settings = student(), dataclasses.replace(SETTINGS, checkpointing=again)
        tune.prepare(sam, settings)
        embedding = sam.image_encoder(torch.from_numpy(image.image_3SS)[None])
        image_loss(sam, embedding, image, settings).loss.backward()
        grads.append([one.grad.clone() for one in sam.parameters() if one.grad is not None])
    assert all(torch.equal(kept, made) for kept, made in zip(*grads, strict=True))
    with pytest.raises(ValueError, match="no blocks to skip"):
        tune.prepare(student(), dataclasses.replace(SETTINGS, drop_path=0.1))


def test_a_vit_s_blocks_drop_out_and_are_made_again() -> None:
    """segment_anything's own encoder, two blocks deep."""
    from functools import partial

    from segment_anything.modeling import ImageEncoderViT

    sam = student()
    torch.manual_seed(1)
    sam.image_encoder = ImageEncoderViT(
        img_size=64, patch_size=8, embed_dim=16, depth=2, num_heads=2, out_chans=32, window_size=4,
        global_attn_indexes=(1,), norm_layer=partial(torch.nn.LayerNorm, eps=1e-6), use_rel_pos=True,
    )  # fmt: skip
    pixels = torch.rand(2, 3, 64, 64)
    plain, names = sam.image_encoder(pixels), set(sam.state_dict())
    tune.prepare(
        sam, dataclasses.replace(SETTINGS, drop_path=0.9, checkpointing=True, lora_rank=2, encoder="lora")
    )
    torch.testing.assert_close(sam.eval().image_encoder(pixels), plain)
    sam.train()
    torch.manual_seed(3)
    changed = sam.image_encoder(pixels)
    assert not torch.allclose(changed, plain)
    changed.sum().backward()
    assert sam.image_encoder.blocks[0].mlp.lin1.up.grad is not None
    optimiser = tune.optimiser_of(sam, SETTINGS)
    assert len({group["scale"] for group in optimiser.param_groups}) == 3
    assert set(tune.merged_state(sam)) == names
