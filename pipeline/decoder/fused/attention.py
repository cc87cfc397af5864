"""The low-rank decoder's arithmetic at image tokens on a CPU, block by block: `Work` in float32.

lowrank_steps.py does the same operation by operation, each reading and writing all image tokens of all
prompts; here a block of image tokens that stays in cache goes through all steps of an attention before the
next begins. attention_kernels.py has the loops; here weights and images are laid out for them.

What it does not do: narrower formats, other devices, machines without scipy, whose products it calls, or with
vectors shorter than 512 bits: with 256 it took 1.2 to 1.3 times as long as operation by operation.

Shapes: as in lowrank.py, and A = H D, L blocks of N image tokens, the last one filled up, J layers so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from maskmill.pipeline.decoder.fused.attention_kernels import BlockedImage, BlockedPrompts, grow, mix
from maskmill.pipeline.decoder.fused.blocks import BLOCK, Floats, array, in_blocks
from maskmill.pipeline.decoder.lowrank import Growth, ImageKeys
from maskmill.pipeline.decoder.lowrank_image import SharedImage, Stage
from maskmill.pipeline.machine.blas import available


class BlockedPositions(NamedTuple):
    """Of a stage, by block: the image tokens' positions behind the projections to keys and to queries."""

    key_LAN: Floats
    query_LAN: Floats


class Blocks:
    """The transformer's weights that lie at image tokens, laid out once a model.

    Args:
        stages: of the transformer.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._positions: list[BlockedPositions] = []
        for stage in stages:
            key_LAN = in_blocks(stage.key_position_HDS.flatten(0, 1))
            query_LAN = key_LAN[:0]
            if stage.step is not None:
                query_LAN = in_blocks(stage.step.query_position_HDS.flatten(0, 1))
            self._positions.append(BlockedPositions(key_LAN, query_LAN))

    @classmethod
    def of(cls, stages: Sequence[Stage]) -> Blocks | None:
        """The same, or None where it doesn't serve: see the file's head."""
        like = stages[0].key_position_HDS
        here = like.device.type == "cpu" and like.dtype == torch.float32
        return cls(stages) if here and serves() else None

    def image(self, shared: SharedImage) -> InBlocks:
        """An image's part, laid out once for all its prompts."""
        return InBlocks(shared, self._positions, _blocked_image(shared))


class InBlocks:
    """`Work` on one image, block by block.

    Args:
        shared: of the image.
        positions: of the transformer, by stage.
        image: the same laid out, by stage.
    """

    def __init__(
        self, shared: SharedImage, positions: Sequence[BlockedPositions], image: Sequence[BlockedImage]
    ) -> None:
        self.shared, self._positions, self._image = shared, positions, image

    def mix(
        self, keys: ImageKeys, number: int, query_PHTD: Tensor, folded_PRK: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Work`."""
        prompts, heads, tokens, width = query_PHTD.shape
        mixed_PHTD = torch.empty_like(query_PHTD, memory_format=torch.contiguous_format)
        sums_PRK = query_PHTD.new_empty(prompts, heads * tokens, keys.num_rows)
        mix(
            self._image[number],
            self._positions[number].key_LAN,
            _prompts(keys, query_PHTD, folded_PRK),
            mixed_PHTD.view(prompts, heads * tokens, width).numpy(),
            sums_PRK.numpy(),
        )
        return mixed_PHTD, None if folded_PRK is None else sums_PRK

    def grow(
        self,
        keys: ImageKeys,
        number: int,
        key_PHTD: Tensor,
        folded_PRK: Tensor | None,
        factors_PKC: Tensor,
    ) -> Growth:
        """See `Work`."""
        num_layers = len(keys.values_PHTD)

        # Products of rows of B: each pair of layers once
        gram_PKK = torch.bmm(factors_PKC, factors_PKC.transpose(1, 2))
        size = factors_PKC.shape[1] // num_layers
        for layer in range(1, num_layers):
            gram_PKK[:, layer * size : (layer + 1) * size, : layer * size] *= 2

        sums_3P1S = factors_PKC.new_zeros(3, len(key_PHTD), 1, keys.rows_PKS.shape[2])
        cross_PS, own_PS, reach_PS = (sums_P1S[:, 0].numpy() for sums_P1S in sums_3P1S)
        grow(
            self._image[number],
            self._positions[number].query_LAN,
            _prompts(keys, key_PHTD, folded_PRK),
            array(torch.stack(keys.values_PHTD).flatten(2, 3)),
            array(gram_PKK),
            array(torch.linalg.vector_norm(factors_PKC, dim=-1)),
            cross_PS,
            own_PS,
            reach_PS,
        )
        return Growth(*sums_3P1S)


def _blocked_image(shared: SharedImage) -> tuple[BlockedImage, ...]:
    found = []
    for stage in shared.stages:
        key_LAN = in_blocks(stage.key_HDS.flatten(0, 1))
        heads, width, num_tokens = stage.value_HDS.shape
        value_HDS = nn.functional.pad(stage.value_HDS, (0, len(key_LAN) * BLOCK - num_tokens))
        value_LHND = value_HDS.view(heads, width, -1, BLOCK).permute(2, 0, 3, 1)
        query_LAN, carried_JLAN, constants_JS = key_LAN[:0], key_LAN[None, :0], np.zeros((0, 0), np.float32)
        if stage.query_HDS is not None:
            query_LAN = in_blocks(stage.query_HDS.flatten(0, 1))
            carried_JLAN = np.stack([in_blocks(carried.flatten(0, 1)) for carried in stage.carried_HDS])
            constants_JS = array(torch.stack(stage.constants_S))
        found.append(BlockedImage(key_LAN, array(value_LHND), query_LAN, carried_JLAN, constants_JS))
    return tuple(found)


def _prompts(keys: ImageKeys, token_PHTD: Tensor, folded_PRK: Tensor | None) -> BlockedPrompts:
    tokens_PRD, rows_PKS = token_PHTD.flatten(1, 2), keys.rows_PKS.numpy()
    if folded_PRK is None or keys.rho_P1S is None:
        none_PS = np.zeros((0, 0), np.float32)
        return BlockedPrompts(array(tokens_PRD), array(tokens_PRD[:, :, :0]), rows_PKS, none_PS, none_PS)
    alpha_P1S = torch.ones_like(keys.rho_P1S) if keys.alpha_P1S is None else keys.alpha_P1S
    scales = array(keys.rho_P1S[:, 0]), array(alpha_P1S[:, 0])
    return BlockedPrompts(array(tokens_PRD), array(folded_PRK), rows_PKS, *scales)


def serves() -> bool:
    """Whether this machine is one that the file's head is about."""
    return available() and torch.backends.cpu.get_cpu_capability() == "AVX512"


def warm_up() -> None:
    """Has the kernels ready, where they serve: loads or compiles them."""
    if not serves():
        return

    def some(*shape: int) -> Floats:
        """Zeros."""
        return np.zeros(shape, np.float32)

    image = BlockedImage(
        some(1, 2, BLOCK), some(1, 1, BLOCK, 2), some(1, 2, BLOCK), some(1, 1, 2, BLOCK), some(1, 4)
    )
    position_LAN, none_PS = some(1, 2, BLOCK), some(0, 0)
    prompts = BlockedPrompts(some(1, 2, 2), some(1, 2, 0), some(1, 2, 4), none_PS, none_PS)
    mix(image, position_LAN, prompts, some(1, 2, 2), some(1, 2, 0))
    sums = some(1, 4), some(1, 4), some(1, 4)
    grow(image, position_LAN, prompts, some(1, 1, 2, 2), some(1, 2, 2), some(1, 2), *sums)
