"""The transformer block by block gives what it gives operation by operation, and serves where it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from maskmill.pipeline.decoder.decoder import IouFirst, SharedImageDecoder
from maskmill.pipeline.decoder.fused import attention, attention_kernels
from maskmill.pipeline.decoder.fused.attention import Blocks, InBlocks
from maskmill.pipeline.decoder.lowrank import ImageKeys
from maskmill.pipeline.machine import blas
from maskmill.pipeline.machine.torch_threads import one_thread
from tests.pipeline.decoder.test_decoder import Model


@pytest.fixture(autouse=True)
def in_one_chunk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Prompts are cut by torch's threads, of which a machine and the tests before have any number.

    And the loops give the same whatever vectors the machine has.
    """
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    with one_thread():
        yield


def _keys(result: object) -> ImageKeys:
    assert isinstance(result, IouFirst) and len(result._chunks) == 1
    keys = result._chunks[0].image
    assert isinstance(keys, ImageKeys)
    return keys


def _close(ours: torch.Tensor, wanted: torch.Tensor) -> bool:
    return ours.shape == wanted.shape and float((ours - wanted).abs().max() / wanted.abs().max()) < 3e-6


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("side", [5, 13, 16])  # less than a block, blocks and a rest, whole blocks
def test_equal_to_the_way_in_steps(side: int, depth: int) -> None:
    model = Model(side=side, depth=depth)
    blocks, steps = (SharedImageDecoder(model.prompt_encoder, model.mask_decoder) for _ in range(2))
    steps._blocks = None
    prompts = model.points(5)

    state = blocks.prepare(model.embedding)
    assert isinstance(state.blocks, InBlocks)
    found = blocks.predict(state, prompts, multimask=True)
    wanted = steps.predict(steps.prepare(model.embedding), prompts, multimask=True)
    assert _close(found.predicted_iou_PM, wanted.predicted_iou_PM)
    ours, theirs = _keys(found), _keys(wanted)
    assert _close(ours.filled_PKS, theirs.filled_PKS)
    assert _close(ours.factors_PKC, theirs.factors_PKC)
    assert ours.rho_P1S is not None and theirs.rho_P1S is not None
    assert _close(ours.rho_P1S, theirs.rho_P1S)
    assert float(ours.cancellation) == pytest.approx(float(theirs.cancellation), rel=1e-4)


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    """The largest score comes late and lies far above: what was summed before it gives way."""
    model = Model(side=16)
    with torch.no_grad():
        for name, parameter in model.mask_decoder.transformer.named_parameters():
            if "image" in name and ("q_proj" in name or "k_proj" in name):
                parameter.mul_(12.0)
    model.embedding[:, 12:] *= 3
    blocks, steps = (SharedImageDecoder(model.prompt_encoder, model.mask_decoder) for _ in range(2))
    steps._blocks = None
    prompts = model.points(4)
    found = blocks.predict(blocks.prepare(model.embedding), prompts, multimask=True).predicted_iou_PM
    wanted = steps.predict(steps.prepare(model.embedding), prompts, multimask=True).predicted_iou_PM
    assert bool(found.isfinite().all())
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-3  # scores of thousands, in float32


def test_what_is_not_a_number_is_seen() -> None:
    """An encoder that overflowed gives no numbers: no mask may look sound."""
    model = Model(side=13)
    model.embedding[0, 5, 5] = torch.nan
    decoder, state = model.ours()
    assert not bool(decoder.predict(state, model.points(2), multimask=True).predicted_iou_PM.isfinite().any())


def test_where_it_does_not_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """Narrow formats, short vectors and machines without scipy go the way in steps."""
    decoder, state = Model().ours(dtype=torch.bfloat16)
    assert state.blocks is None
    stages = decoder.weights.stages
    assert Blocks.of(stages) is not None
    with monkeypatch.context() as shorter:
        shorter.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
        assert Blocks.of(stages) is None
    monkeypatch.setattr(attention, "available", lambda: False)
    assert Blocks.of(stages) is None
    attention.warm_up()


def test_warm_up_leaves_nothing_to_compile() -> None:
    assert blas.available()
    attention.warm_up()
    kernels = (attention_kernels.mix, attention_kernels.grow)
    compiled = [len(kernel.signatures) for kernel in kernels]  # type: ignore[attr-defined]
    model = Model()
    decoder, state = model.ours()
    decoder.predict(state, model.points(2), multimask=True)
    with torch.inference_mode():
        decoder.predict(decoder.prepare(model.embedding), model.points(2), multimask=True)
    assert [len(kernel.signatures) for kernel in kernels] == compiled  # type: ignore[attr-defined]
