"""The shared-image mask decoder and the fused image encoder against `segment_anything`'s own modules.

    python -m benchmarks.decoder --shapes vit --prompts 64 --rounds 5 --threads 2 --json

Weights are random: arithmetic doesn't depend on them. Each round runs the reference, then ours, so that a
machine whose speed drifts or that is shared slows both; speed-ups are medians of the rounds' ratios, once of
wall time and once of this process's CPU time. "none", "half" and "all" say how many prompts pass the
predicted-IoU threshold and need masks. `--shapes heads` holds the mask head, SAM-HQ's too, in one pass to the
one in steps (milliseconds of CPU time a prompt), `--shapes transformers` the transformer block by block to
the one in steps. `peak_gflops` is a large float32 product's speed a second of CPU time, measured in the same
rounds: `share_of_peak` sets the counted arithmetic against it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, TwoWayTransformer
from torch import Tensor, nn

from maskmill.pipeline.decoder import lowrank, lowrank_image
from maskmill.pipeline.decoder.decoder import SharedImageDecoder
from maskmill.pipeline.decoder.encoder import fuse_attention
from maskmill.pipeline.decoder.forms import SAM, SAM_HQ, DecoderForm
from maskmill.pipeline.decoder.fused.attention import Blocks
from maskmill.pipeline.decoder.lowrank_steps import InSteps, Scratch
from maskmill.pipeline.decoder.prompts import Prompts
from maskmill.pipeline.segmenters.family_decoder import DecoderSizes, _add_hq_parts

Result = TypeVar("Result")

NUM_OUTPUTS = 3
POINT_TOKENS = 7


@dataclass(frozen=True)
class Shapes:
    """A decoder's shapes: channels, side of the embedding, heads, hidden width of the token MLP."""

    channels: int
    side: int
    heads: int
    mlp: int


SHAPES = {"vit": Shapes(256, 64, 8, 2048), "nano": Shapes(128, 32, 4, 512)}


@dataclass(frozen=True)
class Spent:
    """Seconds of one call."""

    wall: float
    cpu: float

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall + other.wall, self.cpu + other.cpu)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is asked for and prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--shapes", choices=[*SHAPES, "encoder", "forms", "heads", "transformers"], default="vit"
    )
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--json", action="store_true", help="the whole result, for a machine")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with torch.no_grad():
        if options.shapes == "encoder":
            result = compare_encoder(options.rounds)
        elif options.shapes == "heads":
            result = {
                name: compare_heads(shapes, options.prompts, options.rounds)
                for name, shapes in SHAPES.items()
            }
            result["sam_hq"] = compare_heads(SHAPES["vit"], options.prompts, options.rounds, SAM_HQ)
        elif options.shapes == "transformers":
            result = {
                name: compare_transformers(shapes, options.prompts, options.rounds)
                for name, shapes in SHAPES.items()
            }
        elif options.shapes == "forms":
            result = compare_forms(SHAPES["vit"], options.rounds)
        else:
            result = compare_decoder(SHAPES[options.shapes], options.prompts, options.rounds)
    result |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:32} {value}")


def compare_decoder(shapes: Shapes, num_prompts: int, rounds: int) -> dict[str, Any]:
    """Reference and ours on `num_prompts` point prompts of one image, none, half or all of which pass."""
    prompt_encoder, mask_decoder = build(shapes)
    embedding_CHW = torch.randn(shapes.channels, shapes.side, shapes.side)
    points = torch.rand(num_prompts, 1, 2) * shapes.side * 16, torch.ones(num_prompts, 1)
    decoder = SharedImageDecoder(prompt_encoder, mask_decoder)
    keep_all = torch.ones(num_prompts, NUM_OUTPUTS, dtype=torch.bool)
    keep_half = keep_all.clone()
    keep_half[::2] = False

    def reference() -> tuple[Tensor, Tensor]:
        sparse, dense = prompt_encoder(points, None, None)
        position = prompt_encoder.get_dense_pe()
        logits, iou = mask_decoder(embedding_CHW[None], position, sparse, dense, multimask_output=True)
        return logits, iou

    rows: list[dict[str, Spent]] = []
    errors: list[float] = []
    peaks: list[float] = []
    for _ in range(rounds + 1):
        peaks.append(peak_gflops())
        (logits, iou), reference_spent = spend(reference)
        state, prepare_spent = spend(partial(decoder.prepare, embedding_CHW))
        result, predict_spent = spend(partial(decoder.predict, state, Prompts(*points), multimask=True))
        half, half_spent = spend(partial(result.masks, keep_half))
        ours, all_spent = spend(partial(result.masks, keep_all))
        errors += [_difference(result.predicted_iou_PM, iou), _difference(ours, logits.flatten(0, 1))]
        errors.append(_difference(half, logits[keep_half]))
        rows.append(
            {
                "reference": reference_spent,
                "prepare": prepare_spent,
                "none": predict_spent,
                "half": predict_spent + half_spent,
                "all": predict_spent + all_spent,
            }
        )
    ours_gflop, head_gflop, reference_gflop = arithmetic(shapes, POINT_TOKENS)
    gflop = {"reference": reference_gflop, "none": ours_gflop, "all": ours_gflop + head_gflop}
    peak = statistics.median(peaks)
    return {
        "prompts": num_prompts,
        **summarise(rows[1:]),
        "largest_relative_difference": max(errors),
        "peak_gflops": round(peak, 1),
        "gflop_per_prompt": {name: round(value, 3) for name, value in gflop.items()},
        "share_of_peak": {
            name: round(value * num_prompts / peak / statistics.median(row[name].cpu for row in rows[1:]), 2)
            for name, value in gflop.items()
        },
    }


def compare_forms(shapes: Shapes, rounds: int) -> dict[str, Any]:
    """The transformer in low-rank and in dense form, by number of tokens: where `pays` should turn."""
    prompt_encoder, mask_decoder = build(shapes)
    transformer = mask_decoder.transformer
    position_1CHW = prompt_encoder.get_dense_pe()
    image_CS = torch.randn(shapes.channels, shapes.side**2)
    stages = lowrank_image.build_stages(transformer, position_1CHW[0].flatten(1))
    work = InSteps(stages, lowrank_image.share(stages, image_CS), Scratch(image_CS))
    source_PCHW = image_CS.view(1, *position_1CHW.shape[1:]).expand(4, -1, -1, -1)
    ratios = {}
    for tokens in (7, 9, 12, 16, 20, 24, 28):
        tokens_PTC = torch.randn(4, tokens, shapes.channels)
        dense = partial(transformer, source_PCHW, position_1CHW.expand_as(source_PCHW), tokens_PTC)
        low = partial(lowrank.transform, transformer, stages, tokens_PTC, work)
        pairs = [(spend(dense)[1], spend(low)[1]) for _ in range(rounds + 1)][1:]
        ratios[tokens] = round(statistics.median(a.cpu / b.cpu for a, b in pairs), 2)
    return {"cpu_speedup_by_tokens": ratios}


def compare_heads(shapes: Shapes, num_prompts: int, rounds: int, form: DecoderForm = SAM) -> dict[str, Any]:
    """The mask head in steps and in one pass (fused/head.py), all outputs of all prompts, in turn."""
    prompt_encoder, mask_decoder = build(shapes)
    embedding_CHW = torch.randn(shapes.channels, shapes.side, shapes.side)
    maps = []
    if form is SAM_HQ:
        sizes = DecoderSizes(grid=shapes.side, input_px=16 * shapes.side, early_channels=768)
        _add_hq_parts(mask_decoder, sizes)
        maps = [torch.randn(sizes.early_channels, shapes.side, shapes.side)]
    points = Prompts(torch.rand(num_prompts, 1, 2) * shapes.side * 16, torch.ones(num_prompts, 1))
    keep_PM = torch.ones(num_prompts, NUM_OUTPUTS, dtype=torch.bool)
    predicted = {}
    for name in ("steps", "fused"):
        decoder = SharedImageDecoder(prompt_encoder, mask_decoder, form=form)
        if name == "steps":
            decoder._fused = None
        predicted[name] = decoder.predict(decoder.prepare(embedding_CHW, maps), points, multimask=True)

    in_steps, fused = (partial(predicted[name].masks, keep_PM) for name in ("steps", "fused"))
    expected, found, told = in_turn(in_steps, "fused", fused, num_prompts, rounds)
    return {**told, "largest_relative_difference": _difference(found, expected)}


def compare_transformers(shapes: Shapes, num_prompts: int, rounds: int) -> dict[str, Any]:
    """The transformer in steps and block by block (fused/attention.py), in turn."""
    prompt_encoder, mask_decoder = build(shapes)
    embedding_CHW = torch.randn(shapes.channels, shapes.side, shapes.side)
    points = Prompts(torch.rand(num_prompts, 1, 2) * shapes.side * 16, torch.ones(num_prompts, 1))
    steps, blocks = (SharedImageDecoder(prompt_encoder, mask_decoder) for _ in range(2))
    steps._blocks, blocks._blocks = None, Blocks(blocks._prompt_stages)  # also where it doesn't serve
    in_steps = partial(steps.predict, steps.prepare(embedding_CHW), points, multimask=True)
    in_blocks = partial(blocks.predict, blocks.prepare(embedding_CHW), points, multimask=True)

    expected, found, told = in_turn(in_steps, "blocks", in_blocks, num_prompts, rounds)
    difference = _difference(found.predicted_iou_PM, expected.predicted_iou_PM)
    return {**told, "largest_relative_difference": difference}


def in_turn(
    in_steps: Callable[[], Result], name: str, ours: Callable[[], Result], num_prompts: int, rounds: int
) -> tuple[Result, Result, dict[str, Any]]:
    """The last answers of both, and what each took a prompt; the first round is not counted."""
    rows: list[dict[str, Spent]] = []
    for _ in range(rounds + 1):
        expected, steps_spent = spend(in_steps)
        found, own_spent = spend(ours)
        rows.append({"reference": steps_spent, name: own_spent})
    result = summarise(rows[1:])
    told = {
        "steps_ms": round(1e3 * result["reference_seconds"]["cpu"] / num_prompts, 2),
        f"{name}_ms": round(1e3 * result[f"{name}_seconds"]["cpu"] / num_prompts, 2),
        "speedup": result[f"{name}_speedup"],
    }
    return expected, found, told


def compare_encoder(rounds: int) -> dict[str, Any]:
    """One windowed and one global block of ViT-B at 1024 px."""
    result: dict[str, Any] = {}
    for name, global_layers in (("windowed", ()), ("global", (0,))):
        encoder = ImageEncoderViT(
            depth=1, use_rel_pos=True, window_size=14, global_attn_indexes=global_layers, norm_layer=_norm
        ).eval()
        for parameter in (encoder.blocks[0].attn.rel_pos_h, encoder.blocks[0].attn.rel_pos_w):
            parameter.normal_(std=0.2)
        images = torch.randn(1, 3, 1024, 1024)
        fused = fuse_attention(encoder)
        rows, errors = [], []
        for _ in range(rounds + 1):
            expected, reference_spent = spend(partial(encoder, images))
            ours, ours_spent = spend(partial(fused, images))
            errors.append(_difference(ours, expected))
            rows.append({"reference": reference_spent, name: ours_spent})
        result[name] = summarise(rows[1:]) | {"largest_relative_difference": max(errors)}
    return result | {
        "note": "patch embedding and neck are in both sides' times",
        "peak_gflops": peak_gflops(),
    }


def build(shapes: Shapes) -> tuple[Any, Any]:
    """A prompt encoder and a mask decoder with random weights."""
    pixels = shapes.side * 16
    transformer = TwoWayTransformer(2, shapes.channels, shapes.heads, shapes.mlp)
    prompt_encoder = PromptEncoder(shapes.channels, (shapes.side, shapes.side), (pixels, pixels), 16)
    mask_decoder = MaskDecoder(transformer_dim=shapes.channels, transformer=transformer)
    return prompt_encoder.eval(), mask_decoder.eval()


def spend(work: Callable[[], Result]) -> tuple[Result, Spent]:
    """What `work` returns, and its time."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, Spent(time.perf_counter() - wall, time.process_time() - cpu)


def peak_gflops(size: int = 1536) -> float:
    """Speed of a large float32 product, GFLOP a second of CPU time: the best of three."""
    left, right, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    seconds = min(spend(partial(torch.mm, left, right, out=out))[1].cpu for _ in range(3))
    return 2e-9 * size**3 / seconds


def arithmetic(shapes: Shapes, tokens: int) -> tuple[float, float, float]:
    """GFLOP a prompt on the image side: our transformer, our head for all outputs, the whole reference."""
    channels, heads, inner, depth = shapes.channels, shapes.heads, shapes.channels // 2, 2
    rows, token_heads = heads * (tokens - 1) + 1, heads * tokens
    ours = 0
    for stage in range(depth + 1):
        known = stage * rows
        scores = tokens * inner * (2 if stage else 1) + token_heads * known
        ours += scores + tokens * inner + token_heads * known
        if stage < depth:
            ours += scores + sum(
                (tokens - 1) * inner + rows * (layer + 1) * rows for layer in range(stage + 1)
            )
    rest = 4 * (channels // 4) * (channels // 2)
    head = (depth * rows + 1) * channels + rest + 16 * (channels // 8) * NUM_OUTPUTS
    reference = (
        depth * (4 * channels * inner + 4 * tokens * inner) + 2 * channels * inner + 2 * tokens * inner
    )
    reference += channels * channels + rest + 16 * (channels // 8) * (NUM_OUTPUTS + 1)
    per_mac = 2e-9 * shapes.side**2
    return ours * per_mac, head * per_mac, reference * per_mac


def summarise(rows: list[dict[str, Spent]]) -> dict[str, Any]:
    """Median seconds of each name, and median ratios of the reference's to it."""
    result: dict[str, Any] = {}
    for name in rows[0]:
        wall = statistics.median(row[name].wall for row in rows)
        cpu = statistics.median(row[name].cpu for row in rows)
        result[f"{name}_seconds"] = {key: round(value, 4) for key, value in asdict(Spent(wall, cpu)).items()}
        if name in ("reference", "prepare"):
            continue
        by_wall = statistics.median(row["reference"].wall / row[name].wall for row in rows)
        by_cpu = statistics.median(row["reference"].cpu / row[name].cpu for row in rows)
        result[f"{name}_speedup"] = {"wall": round(by_wall, 2), "cpu": round(by_cpu, 2)}
    return result


def _difference(ours: Tensor, reference: Tensor) -> float:
    return float((ours - reference).abs().max() / reference.abs().max())


def _norm(channels: int) -> nn.LayerNorm:
    return nn.LayerNorm(channels, eps=1e-6)


if __name__ == "__main__":
    main()
