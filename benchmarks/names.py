"""Does the name stage name? A small CLIP is trained on coloured shapes, then names masks of scenes of them.

The words are known ("red circle"), so accuracy is exact: by mask size, for the dense map alone, for crops
alone, and for the stage's own mix. The model has some hundred thousand weights in transformers' format and is
trained from nothing in a minute or two, on whole pictures and on their positions under the shape (a public
CLIP's positions have that from its scale). It shows that the stage works end to end, not what a public CLIP
does on photographs.

    python -m benchmarks.names                       train, measure, print the table
    python -m benchmarks.names --save build/clip     and keep the model, as a folder for names.model
    python -m benchmarks.names --model build/clip    measure a model that is there
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from maskmill.pipeline.annotation import AnnotatedImage, Annotation
from maskmill.pipeline.rle import encode_mask
from maskmill.pipeline.settings.words import NameSettings
from maskmill.pipeline.words.clip import ClipTowers, Namer, load_namer
from maskmill.pipeline.words.name import MaskNamer

Image = npt.NDArray[np.uint8]

COLOURS = {
    "red": (214, 48, 40),
    "green": (46, 160, 60),
    "blue": (50, 84, 206),
    "yellow": (236, 208, 50),
    "purple": (140, 60, 170),
}
SHAPES = ("circle", "square", "triangle", "cross")
WORDS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
TEMPLATE = "a photo of a {}."

PATCH = 8
SIZES_PX = ((4, 8), (8, 16), (16, 32), (32, 48))
"""Sides of the shapes by which accuracy is told: under a patch, up to two, up to four, more."""

SCENE_SIDE = 128


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """A picture of shapes, with what each is."""

    image: Image
    masks: AnnotatedImage
    words: tuple[str, ...]
    sides_px: tuple[int, ...]


def shape_mask(shape: str, side: int) -> npt.NDArray[np.bool_]:
    """bool[side, side] of a shape that fills its box."""
    y, x = (np.indices((side, side)) + 0.5) / side * 2 - 1
    masks: dict[str, npt.NDArray[np.bool_]] = {
        "circle": x**2 + y**2 <= 1,
        "square": np.ones((side, side), bool),
        "triangle": np.abs(x) <= (y + 1) / 2,
        "cross": (np.abs(x) <= 0.36) | (np.abs(y) <= 0.36),
    }
    return masks[shape]


def background(draw: np.random.Generator, height: int, width: int) -> Image:
    """Grey with soft blotches and noise."""
    blotches = draw.normal(0, 14, (height // 16 + 1, width // 16 + 1))
    grey = draw.uniform(90, 190) + np.kron(blotches, np.ones((16, 16)))[:height, :width]
    return np.clip(grey[..., None] + draw.normal(0, 5, (height, width, 3)), 0, 255).astype(np.uint8)


def paint(draw: np.random.Generator, image: Image, word: str, left: int, top: int, side: int) -> Any:
    """Draws a shape in its colour, a little varied; returns its mask, bool[H, W]."""
    colour, shape = word.split()
    height, width = image.shape[:2]
    mask = np.zeros((height, width), bool)
    part = shape_mask(shape, side)[: max(0, height - top), : max(0, width - left)]
    mask[top : top + part.shape[0], left : left + part.shape[1]] = part
    tint = np.array(COLOURS[colour]) + draw.normal(0, 12, 3)
    image[mask] = np.clip(tint + draw.normal(0, 5, (int(mask.sum()), 3)), 0, 255).astype(np.uint8)
    return mask


def training_batch(
    draw: np.random.Generator, size: int, side: int, words: Sequence[str]
) -> tuple[Any, Any, list[int]]:
    """Pictures of one shape each.

    Returns:
        images uint8[B, side, side, 3], the shapes' masks bool[B, side, side], places of their words int[B].
    """
    labels = draw.permutation(np.arange(size) % len(words)).tolist()
    images, masks = [], []
    for label in labels:
        image = background(draw, side, side)
        of_shape = int(draw.integers(side // 8, side))
        left, top = (int(draw.integers(0, side - of_shape + 1)) for _ in range(2))
        masks.append(paint(draw, image, words[label], left, top, of_shape))
        images.append(image)
    return np.stack(images), np.stack(masks), labels


def make_scene(
    draw: np.random.Generator, words: Sequence[str], *, side: int = SCENE_SIDE, num_shapes: int = 6
) -> Scene:
    """A scene of shapes of all sizes that don't touch."""
    image, taken = background(draw, side, side), np.zeros((side, side), bool)
    found: list[tuple[Annotation, str, int]] = []
    for place in range(num_shapes * 20):
        if len(found) == num_shapes:
            break
        low, high = SIZES_PX[place % len(SIZES_PX)]
        of_shape = int(draw.integers(low, high))
        left, top = (int(draw.integers(2, side - of_shape - 2)) for _ in range(2))
        around = np.s_[top - 2 : top + of_shape + 2, left - 2 : left + of_shape + 2]
        if taken[around].any():
            continue
        taken[around] = True
        word = words[int(draw.integers(len(words)))]
        found.append((annotation_of(paint(draw, image, word, left, top, of_shape)), word, of_shape))
    masks = AnnotatedImage(side, side, tuple(one[0] for one in found))
    return Scene(image, masks, tuple(one[1] for one in found), tuple(one[2] for one in found))


def annotation_of(mask_HW: npt.NDArray[np.bool_]) -> Annotation:
    """A mask as the mask stage would give it."""
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


def word_tokenizer(words: Sequence[str]) -> Any:
    """A word a token, in transformers' format; the end token has the highest number, as CLIP's has."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = sorted({piece for word in words for piece in TEMPLATE[:-1].format(word).split()} | {"."})
    numbers = {token: place for place, token in enumerate(["[PAD]", "[UNK]", "[BOS]", *known, "[EOS]"])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[BOS]", numbers["[BOS]"]), ("[EOS]", numbers["[EOS]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=ends)
    specials = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "[BOS]", "eos_token": "[EOS]"}
    maker: Any = PreTrainedTokenizerFast
    return maker(tokenizer_object=tokenizer, **specials)


def build_clip(tokenizer: Any, *, side: int, width: int, layers: int) -> Any:
    """A fresh `CLIPModel` of patches of 8 px."""
    from transformers import CLIPConfig, CLIPModel

    tower = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": width // 16}
    length = len(tokenizer)
    return CLIPModel(
        CLIPConfig(
            text_config={
                **tower,
                "num_hidden_layers": 1,
                "vocab_size": length,
                "max_position_embeddings": 16,
                "bos_token_id": 2,
                "eos_token_id": length - 1,
                "pad_token_id": 0,
            },
            vision_config={**tower, "num_hidden_layers": layers, "image_size": side, "patch_size": PATCH},
            projection_dim=width,
        )
    )


def train_clip(
    folder: Path,
    *,
    words: Sequence[str] = WORDS,
    side: int = 48,
    width: int = 64,
    layers: int = 2,
    steps: int = 600,
    batch: int = 48,
    seed: int = 0,
) -> dict[str, float]:
    """Trains a small CLIP on pictures of one shape and saves it as `names.model` wants it.

    Contrastive as CLIP's, against all words at once (they are few): each picture, and the mean of its
    positions under the shape, against the text of every word.

    Args:
        folder: to write.
        words: "colour shape" each.
        side: of the pictures in px.
        width, layers: of the vision tower.
        steps, batch, seed: of the training.

    Returns:
        `loss` and `accuracy` of the last tenth, `seconds`, `weights`.
    """
    from transformers import CLIPImageProcessor

    start_s = time.perf_counter()
    draw = np.random.default_rng(seed)
    torch.manual_seed(seed)
    tokenizer = word_tokenizer(words)
    model = build_clip(tokenizer, side=side, width=width, layers=layers).train()
    towers = ClipTowers(model)
    processor: Any = CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    texts = tokenizer([TEMPLATE.format(word) for word in words], padding=True, return_tensors="pt")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    last: list[tuple[float, float]] = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = (
                2e-3 * min(1, (step + 1) / 30) * (0.02 + 0.98 * (1 + math.cos(math.pi * step / steps)) / 2)
            )
        images, masks, labels = training_batch(draw, batch, side, words)
        pixels = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std
        found = model(
            pixel_values=pixels, input_ids=texts["input_ids"], attention_mask=texts["attention_mask"]
        )
        logits, truth = found.logits_per_image, torch.tensor(labels)
        under_BP = F.adaptive_avg_pool2d(torch.from_numpy(masks).float(), side // PATCH).flatten(1)
        positions_BPD = F.normalize(towers.dense_features(pixels), dim=-1)
        pooled_BD = F.normalize((under_BP[..., None] * positions_BPD).sum(dim=1), dim=-1)
        dense = towers.logits(pooled_BD @ found.text_embeds.T)
        loss = F.cross_entropy(logits, truth) + F.cross_entropy(dense, truth)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if step >= steps - max(1, steps // 10):
            last.append((loss.item(), float((logits.argmax(dim=1) == truth).float().mean())))
    for part in (model.eval(), tokenizer, processor):
        part.save_pretrained(folder)
    loss_mean, accuracy = (sum(values) / len(last) for values in zip(*last, strict=True))
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    seconds = time.perf_counter() - start_s
    return {"loss": loss_mean, "accuracy": accuracy, "seconds": seconds, "weights": float(num_weights)}


def measure(
    namer: Namer, scenes: Sequence[Scene], settings: NameSettings, words: Sequence[str]
) -> dict[str, Any]:
    """Accuracy of the best name by the shapes' side, share of masks cropped, and milliseconds a mask."""
    stage = MaskNamer(namer, words, settings)
    stage(scenes[0].image, scenes[0].masks)
    start_s = time.perf_counter()
    named = [stage(scene.image, scene.masks) for scene in scenes]
    seconds = time.perf_counter() - start_s
    right: dict[str, list[bool]] = {f"{low}-{high} px": [] for low, high in SIZES_PX}
    cropped = []
    for scene, found in zip(scenes, named, strict=True):
        for word, side, mask in zip(scene.words, scene.sides_px, found.masks, strict=True):
            size = next(name for name, (_, high) in zip(right, SIZES_PX, strict=True) if side < high)
            right[size].append(mask.names[0] == word)
            cropped.append(mask.by == "crops")
    every = [one for ones in right.values() for one in ones]
    return {
        **{size: round(float(np.mean(ones)), 3) for size, ones in right.items() if ones},
        "all": round(float(np.mean(every)), 3),
        "cropped": round(float(np.mean(cropped)), 3),
        "ms_per_mask": round(1000 * seconds / len(every), 3),
        "masks": len(every),
    }


def main() -> None:
    """See the top of the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a trained folder; trains one if left out")
    parser.add_argument("--save", type=Path, help="where to keep the trained model")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.model or arguments.save or Path(scratch) / "clip"
        training = None if arguments.model else train_clip(folder, steps=arguments.steps)
        namer = load_namer(str(folder), device="cpu")
    draw = np.random.default_rng(99)
    scenes = [make_scene(draw, WORDS) for _ in range(arguments.scenes)]
    base = NameSettings(model=str(folder), vocabulary=WORDS, templates=(TEMPLATE,), dense_side=SCENE_SIDE)
    ways = {"dense": {"crops": "none"}, "crops": {"crops": "all"}, "auto": {"crops": "auto"}}
    results = {
        name: measure(namer, scenes, dataclasses.replace(base, **changes), WORDS)  # type: ignore[arg-type]
        for name, changes in ways.items()
    }
    if arguments.json:
        print(json.dumps({"training": training, "chance": 1 / len(WORDS), "results": results}, indent=2))
        return
    if training:
        print({name: round(value, 3) for name, value in training.items()})
    columns = list(results["dense"])
    print("| way | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
    for name, row in results.items():
        print(f"| {name} | " + " | ".join(str(row[column]) for column in columns) + " |")
    print(f"chance is {1 / len(WORDS):.3f}")


if __name__ == "__main__":
    main()
