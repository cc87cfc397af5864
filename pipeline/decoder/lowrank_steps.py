"""The low-rank decoder's arithmetic at image tokens, operation by operation: any device and number format.

lowrank.py has the algebra and its numbers (1) to (4), and says what is asked for (`Work`). Here each
operation goes over all image tokens of all prompts before the next begins; on a CPU in float32
fused/attention.py goes block by block, and is held to this.

Shapes: as in lowrank.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from maskmill.pipeline.decoder.lowrank import Growth, ImageKeys, num_rows
from maskmill.pipeline.decoder.lowrank_image import SharedImage, SharedStage, Stage


class Scratch:
    """Memory that is used again and again: touching new pages costs more than the arithmetic on them."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self._kept: dict[str, Tensor] = {}

    def take(self, name: str, *shape: int) -> Tensor:
        """An uninitialised tensor, valid until `name` is taken again."""
        size = math.prod(shape)
        if name not in self._kept or len(self._kept[name]) < size:
            self._kept[name] = self._like.new_empty(size)
        return self._kept[name][:size].view(shape)


class InSteps:
    """`Work` on one image, in torch's operations.

    Args:
        stages: the transformer's, their positions in the image's number format.
        shared: of the image.
        scratch: in the image's number format.
    """

    def __init__(self, stages: Sequence[Stage], shared: SharedImage, scratch: Scratch) -> None:
        self._stages, self.shared, self._scratch = stages, shared, scratch

    def mix(
        self, keys: ImageKeys, number: int, query_PHTD: Tensor, folded_PRK: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See `Work`."""
        stage, shared, scratch = self._stages[number], self.shared.stages[number], self._scratch
        scores_PHTS = _scores(keys, query_PHTD, folded_PRK, shared.key_HDS, stage.key_position_HDS, scratch)
        share_PHTS = torch.softmax(scores_PHTS, dim=-1, out=scratch.take("share", *scores_PHTS.shape))
        if keys.rho_P1S is None:
            return _mix(share_PHTS, shared.value_HDS, scratch), None

        share_PHTS.mul_(_as(keys.rho_P1S, share_PHTS)[:, None])
        sums_PRK = torch.bmm(share_PHTS.flatten(1, 2), keys.filled_PKS.transpose(1, 2))
        if keys.alpha_P1S is not None:
            share_PHTS.mul_(_as(keys.alpha_P1S, share_PHTS)[:, None])
        return _mix(share_PHTS, shared.value_HDS, scratch), sums_PRK

    def grow(
        self,
        keys: ImageKeys,
        number: int,
        key_PHTD: Tensor,
        folded_PRK: Tensor | None,
        factors_PKC: Tensor,
    ) -> Growth:
        """See `Work`."""
        step, shared, scratch = self._stages[number].step, self.shared.stages[number], self._scratch
        assert step is not None and shared.query_HDS is not None, "the last stage has no step"
        scores_PHTS = _scores(keys, key_PHTD, folded_PRK, shared.query_HDS, step.query_position_HDS, scratch)

        # Over the tokens: the shares are the new rows of Z
        share_PHTS = torch.softmax(scores_PHTS, dim=2, out=scratch.take("share", *scores_PHTS.shape))
        if keys.rho_P1S is not None:  # older rows carry their rho from here on
            keys.filled_PKS.mul_(_as(keys.rho_P1S, keys.rows_PKS))
        _, heads, tokens, _ = key_PHTD.shape
        last = keys.num_rows + num_rows(tokens, heads)
        _by_head(keys.rows_PKS[:, keys.num_rows : last - 1], heads).copy_(share_PHTS[:, :, :-1])
        keys.rows_PKS[:, last - 1] = 1.0

        rows_PKS = keys.rows_PKS[:, :last]
        cross_P1S = _cross(rows_PKS, keys.values_PHTD, shared, scratch)
        own_P1S = _square(rows_PKS, factors_PKC, len(keys.values_PHTD), scratch)
        lengths_P1K = torch.linalg.vector_norm(factors_PKC, dim=-1)[:, None]
        reach_P1S = torch.bmm(_as(lengths_P1K, rows_PKS), rows_PKS)
        return Growth(cross_P1S, own_P1S, reach_P1S)


def _cross(rows_PKS: Tensor, values_PHTD: Sequence[Tensor], shared: SharedStage, scratch: Scratch) -> Tensor:
    """float[P, 1, S]: the inner product of X and Z B at each image token, (3)'s second summand."""
    num_image_tokens = rows_PKS.shape[-1]
    total_PS = torch.zeros(())
    layers = zip(values_PHTD, shared.carried_HDS, shared.constants_S, strict=True)
    for layer, (value_PHTD, image_HDS, constant_S) in enumerate(layers):
        prompts, heads, tokens, _ = value_PHTD.shape
        size = num_rows(tokens, heads)
        own_PKS = rows_PKS[:, layer * size : (layer + 1) * size]
        crossed_PHTS = scratch.take("weighted", prompts, heads, tokens - 1, num_image_tokens)
        products_PHTS = _products(value_PHTD[:, :, :-1], image_HDS, scratch)
        torch.mul(products_PHTS, _by_head(own_PKS[:, :-1], heads), out=crossed_PHTS)

        # The last token, folded into a row of ones
        last_PD = value_PHTD[:, :, -1].flatten(1)
        last_PS = _as(_as(last_PD, image_HDS) @ image_HDS.flatten(0, 1), last_PD) + constant_S

        sum_PS = _as(_sum_rows(crossed_PHTS.flatten(1, 2))[:, 0], last_PD)
        total_PS = total_PS + sum_PS + own_PKS[:, -1] * last_PS
    return total_PS[:, None]


def _square(rows_PKS: Tensor, factors_PKC: Tensor, num_blocks: int, scratch: Scratch) -> Tensor:
    """float[P, 1, S]: the squared length of Z B, (3)'s last summand; each pair of blocks of rows once."""
    prompts, all_rows, num_image_tokens = rows_PKS.shape
    size = all_rows // num_blocks
    total_P1S = torch.zeros(())
    for first in range(0, all_rows, size):
        last = first + size
        gram_PKK = torch.bmm(factors_PKC[:, first:last], factors_PKC[:, :last].transpose(1, 2))
        gram_PKK[:, :, :first] *= 2

        weighted_PKS = scratch.take("weighted", prompts, size, num_image_tokens)
        torch.bmm(_as(gram_PKK, rows_PKS), rows_PKS[:, :last], out=weighted_PKS)
        sum_P1S = _sum_rows(weighted_PKS.mul_(rows_PKS[:, first:last]))
        total_P1S = total_P1S + _as(sum_P1S, factors_PKC)
    return total_P1S


def _sum_rows(rows_PKS: Tensor) -> Tensor:
    """float[P, 1, S]: the sum over rows, as a product, which is faster than `sum` over this axis."""
    return torch.bmm(rows_PKS.new_ones(rows_PKS.shape[0], 1, rows_PKS.shape[1]), rows_PKS)


def _scores(
    keys: ImageKeys,
    token_PHTD: Tensor,
    folded_PRK: Tensor | None,
    image_HDS: Tensor,
    position_HDS: Tensor,
    scratch: Scratch,
) -> Tensor:
    """float[P, H, T, S]: products of the tokens' side with the image tokens' projection."""
    prompts, heads, tokens, _ = token_PHTD.shape

    # (2): X W, all there is before the first layer's step
    image_PHTS = _products(token_PHTD, image_HDS, scratch)
    scores_PHTS = scratch.take("scores", prompts, heads, tokens, image_HDS.shape[-1])
    if folded_PRK is None:
        return scores_PHTS.copy_(image_PHTS)

    # (2): Z (B W), then alpha and rho, and last the positions
    assert keys.rho_P1S is not None, "rows come with their norm"
    torch.bmm(_as(folded_PRK, keys.rows_PKS), keys.filled_PKS, out=scores_PHTS.flatten(1, 2))
    if keys.alpha_P1S is None:
        scores_PHTS.add_(image_PHTS)
    else:
        scores_PHTS.addcmul_(image_PHTS, _as(keys.alpha_P1S, image_PHTS)[:, None])
    scores_PHTS.mul_(_as(keys.rho_P1S, scores_PHTS)[:, None])
    return scores_PHTS.add_(_products(token_PHTD, position_HDS, scratch))


def _products(token_PHTD: Tensor, image_HDS: Tensor, scratch: Scratch) -> Tensor:
    """float[P, H, T, S], a view with the heads outermost: one product a head over all prompts' tokens."""
    prompts, heads, tokens, width = token_PHTD.shape
    token_HND = _as(token_PHTD, image_HDS).transpose(0, 1).reshape(heads, prompts * tokens, width)
    products_HNS = scratch.take("products", heads, prompts * tokens, image_HDS.shape[-1])
    torch.bmm(token_HND, image_HDS, out=products_HNS)
    return products_HNS.view(heads, prompts, tokens, -1).transpose(0, 1)


def _mix(share_PHTS: Tensor, value_HDS: Tensor, scratch: Scratch) -> Tensor:
    """float[P, H, T, D]: head by head, the values under the shares."""
    prompts, heads, tokens, image_tokens = share_PHTS.shape
    share_HPTS = scratch.take("products", heads, prompts, tokens, image_tokens)
    share_HPTS.copy_(share_PHTS.transpose(0, 1))
    mixed_HND = torch.bmm(share_HPTS.flatten(1, 2), value_HDS.transpose(1, 2))
    return mixed_HND.view(heads, prompts, tokens, -1).transpose(0, 1)


def _as(values: Tensor, like: Tensor) -> Tensor:
    """In the number format of `like`; the same tensor where it is already."""
    return values.to(like.dtype)


def _by_head(rows_PKS: Tensor, num_heads: int) -> Tensor:
    """float[P, H, K / H, S]: a view."""
    prompts, rows, num_image_tokens = rows_PKS.shape
    return rows_PKS.view(prompts, num_heads, rows // num_heads, num_image_tokens)
