"""Tokenwise layers over blocks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from maskmill.pipeline.segmenters import token_blocks
from maskmill.pipeline.segmenters.token_blocks import TokenBlocks, over_blocks


def _mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 6))


@pytest.mark.parametrize("shape", [(1, 8), (50, 8), (2, 5, 7, 8)])
def test_blocks_give_what_the_whole_gives(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_blocks, "_BLOCK_NUMBERS", 9 * 32)  # the last block is shorter
    mlp, tokens = _mlp(), torch.randn(shape)
    blocks = TokenBlocks(mlp)
    rows: list[int] = []
    mlp.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    found = blocks(tokens)
    assert max(rows) <= 9 and sum(rows) == tokens.numel() // 8
    torch.testing.assert_close(found, mlp(tokens))


def test_a_vision_encoder_of_transformers_goes_over_blocks_and_stays_itself() -> None:
    kinds: list[tuple[Any, int]] = [
        (transformers.Sam2HieraDetConfig(hidden_size=16, embed_dim_per_stage=[16, 32, 64, 128]), 128),
        (transformers.Sam3ViTConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            image_size=56, pretrain_image_size=56, window_size=2, global_attn_indexes=[1],
        ), 56),
    ]  # fmt: skip
    for config, side in kinds:
        torch.manual_seed(0)
        vision = transformers.AutoModel.from_config(config).eval()
        pixels = torch.randn(1, 3, side, side)
        changed = over_blocks(copy.deepcopy(vision))
        assert any(isinstance(layer, TokenBlocks) for layer in changed.modules())
        with torch.no_grad():
            torch.testing.assert_close(changed(pixels)[0], vision(pixels)[0])
