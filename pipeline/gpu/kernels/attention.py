"""Attention with decomposed relative positions, in one pass that never writes the scores.

For a query at (y, x) of its window and a key at (y', x'),

    (1)  score = scale q . k + down[q, y'] + across[q, x']
    (2)  output = sum over keys of softmax(score) v, the softmax online: a running maximum and a running sum

`down` and `across` are the query's products with the two small tables of positions, made beforehand. A window
reaches over the image's border; what lies there is a key like any other, the projection's bias (the reference
pads normalised tokens with zeros before it projects), so nothing is padded or copied: these keys come from
`bias`. Global attention is one window over all of the image.

A head's width is cut in two parts, each a power of two (80 = 64 + 16), so that no product is padded.

Shapes: M queries and N keys of a block, D channels of a head's first part, R of its second.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _keys(
    pointer: tl.tensor,
    offsets_N: tl.tensor,
    inside_N: tl.tensor,
    within_N: tl.tensor,
    bias: tl.tensor,
    channels_D: tl.tensor,
) -> tl.tensor:
    """[N, D]: keys or values of a block: the image's own, beyond its border the bias."""
    at = pointer + offsets_N[:, None] + channels_D[None, :]
    own = tl.load(at, mask=inside_N[:, None], other=0.0)
    beyond = tl.load(bias + channels_D)[None, :]
    return tl.where(inside_N[:, None] | ~within_N[:, None], own, beyond)


@triton.jit
def attention_kernel(
    qkv: tl.tensor,
    bias: tl.tensor,
    down: tl.tensor,
    across: tl.tensor,
    out: tl.tensor,
    scale: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    heads: tl.tensor,
    windows_across: tl.tensor,
    WINDOW: tl.constexpr,
    PADDED: tl.constexpr,
    ROWS: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    POSITIONS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """A block of queries of one head of one window.

    qkv [B, height, width, 3, heads, D + R], bias [3, heads, D + R], down and across [B, height, width, heads,
    WINDOW], out [B, height, width, heads, D + R]. A block of keys is ROWS rows of the window, PADDED keys
    each. Grid: blocks of queries, windows x heads, B.
    """
    head = tl.program_id(1) % heads
    window = tl.program_id(1) // heads
    channels = D + R
    token_step = 3 * heads * channels
    top = (window // windows_across) * WINDOW
    left = (window % windows_across) * WINDOW
    image = tl.program_id(2).to(tl.int64) * height * width

    # The block's queries, where they lie in the image
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    y_M, x_M = top + m // WINDOW, left + m % WINDOW
    inside_M = (m < WINDOW * WINDOW) & (y_M < height) & (x_M < width)
    token_M = image + y_M * width + x_M
    d = tl.arange(0, D)
    query = qkv + head * channels
    query_MD = tl.load(query + token_M[:, None] * token_step + d[None, :], mask=inside_M[:, None], other=0.0)
    if R > 0:
        r = tl.arange(0, R)
        at_MR = token_M[:, None] * token_step + D + r[None, :]
        query_MR = tl.load(query + at_MR, mask=inside_M[:, None], other=0.0)
        rest_MR = tl.zeros([BLOCK_M, R], tl.float32)

    n = tl.arange(0, ROWS * PADDED)
    row_N, x_N = n // PADDED, n % PADDED
    position_M = (token_M * heads + head) * WINDOW
    across_MN = tl.zeros([BLOCK_M, ROWS * PADDED], tl.float32)
    if POSITIONS:
        seen_MN = inside_M[:, None] & (x_N < WINDOW)[None, :]
        across_MN = tl.load(across + position_M[:, None] + x_N[None, :], mask=seen_MN, other=0.0).to(
            tl.float32
        )

    best_M = tl.full([BLOCK_M], -float("inf"), tl.float32)
    sum_M = tl.zeros([BLOCK_M], tl.float32)
    mixed_MD = tl.zeros([BLOCK_M, D], tl.float32)
    for first in range(0, WINDOW, ROWS):
        # The keys of some rows of the window
        y_N = first + row_N
        within_N = (y_N < WINDOW) & (x_N < WINDOW)
        inside_N = within_N & (top + y_N < height) & (left + x_N < width)
        offsets_N = (image + (top + y_N) * width + left + x_N) * token_step
        key, value = qkv + (heads + head) * channels, qkv + (2 * heads + head) * channels
        key_bias, value_bias = bias + (heads + head) * channels, bias + (2 * heads + head) * channels
        key_ND = _keys(key, offsets_N, inside_N, within_N, key_bias, d)
        scores_MN = tl.dot(query_MD, tl.trans(key_ND), input_precision=PRECISION)
        if R > 0:
            key_NR = _keys(key + D, offsets_N, inside_N, within_N, key_bias + D, r)
            scores_MN += tl.dot(query_MR, tl.trans(key_NR), input_precision=PRECISION)

        # (1)
        scores_MN = scores_MN * scale + across_MN
        if POSITIONS:
            seen_MN = inside_M[:, None] & within_N[None, :]
            scores_MN += tl.load(down + position_M[:, None] + y_N[None, :], mask=seen_MN, other=0.0).to(
                tl.float32
            )
        scores_MN = tl.where(within_N[None, :], scores_MN * LOG2_E, -float("inf"))

        # (2)
        better_M = tl.maximum(best_M, tl.max(scores_MN, axis=1))
        share_MN = tl.exp2(scores_MN - better_M[:, None])
        kept_M = tl.exp2(best_M - better_M)
        sum_M = sum_M * kept_M + tl.sum(share_MN, axis=1)
        share_MN = share_MN.to(query_MD.dtype)
        value_ND = _keys(value, offsets_N, inside_N, within_N, value_bias, d)
        mixed_MD = mixed_MD * kept_M[:, None] + tl.dot(share_MN, value_ND, input_precision=PRECISION)
        if R > 0:
            value_NR = _keys(value + D, offsets_N, inside_N, within_N, value_bias + D, r)
            rest_MR = rest_MR * kept_M[:, None] + tl.dot(share_MN, value_NR, input_precision=PRECISION)
        best_M = better_M

    to_M = (token_M * heads + head) * channels
    tl.store(
        out + to_M[:, None] + d[None, :],
        (mixed_MD / sum_M[:, None]).to(query_MD.dtype),
        mask=inside_M[:, None],
    )
    if R > 0:
        rest = (rest_MR / sum_M[:, None]).to(query_MD.dtype)
        tl.store(out + to_M[:, None] + D + r[None, :], rest, mask=inside_M[:, None])
