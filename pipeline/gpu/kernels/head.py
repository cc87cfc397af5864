"""The mask head in one kernel: from image tokens in low-rank form to the logits of the wanted outputs.

For each image token, with X W made once an image and Z, B of the prompt (decoder/lowrank.py's (1)),

    (1)  first = (rho alpha) X W + rho Z (B W) + constant [+ the image's middle map]
    (2)  pixel = GELU(LayerNorm(first)), for each of the four pixels under the token
    (3)  fine = GELU(pixel W2 + bias [or the image's fine map]), for each of the four under the pixel
    (4)  logit = fine . direction, for each output

A program makes one of the four pixels of a block of tokens of one prompt. Nothing but logits is written, for
outputs that are wanted, each at its own place.

Shapes: P prompts, S image tokens, K rows of Z, E channels of a pixel, G of a fine pixel, M outputs.

"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _gelu(x: tl.tensor) -> tl.tensor:
    return 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))


@triton.jit
def head_kernel(
    rows: tl.tensor,
    rho: tl.tensor,
    weight: tl.tensor,
    mapped: tl.tensor,
    shared: tl.tensor,
    constant: tl.tensor,
    middle: tl.tensor,
    norm_weight: tl.tensor,
    norm_bias: tl.tensor,
    second: tl.tensor,
    second_bias: tl.tensor,
    fine_map: tl.tensor,
    direction: tl.tensor,
    keep: tl.tensor,
    out: tl.tensor,
    eps: tl.tensor,
    tokens: tl.tensor,
    across: tl.tensor,
    row_count: tl.tensor,
    row_step: tl.tensor,
    K: tl.constexpr,
    E: tl.constexpr,
    G: tl.constexpr,
    M: tl.constexpr,
    FINER: tl.constexpr,
    BLOCK: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Grid: prompts, blocks of tokens, four pixels under each.

    rows [P, row_step, S], rho and weight [P, S], mapped [P, row_count, 4, E], shared and middle [S, 4, E],
    constant [4, E], second [4, E, G], second_bias [G], fine_map [S, 4, 4, G], direction [P, M, G],
    keep [P, M], out [P, M, 4 H, 4 W].
    """
    prompt, pixel = tl.program_id(0), tl.program_id(2)
    wanted = 0
    for m in tl.static_range(M):
        wanted += tl.load(keep + prompt * M + m).to(tl.int32)
    if wanted != 0:
        s = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        e, k, g = tl.arange(0, E), tl.arange(0, K), tl.arange(0, G)
        seen_S = s < tokens
        prompt_at = prompt.to(tl.int64)

        # (1)
        rows_at = rows + prompt_at * row_step * tokens + k[None, :] * tokens + s[:, None]
        rows_SK = tl.load(rows_at, mask=seen_S[:, None] & (k < row_count)[None, :], other=0.0)
        rho_S = tl.load(rho + prompt_at * tokens + s, mask=seen_S, other=0.0)
        mapped_at = mapped + (prompt_at * row_count + k[:, None]) * 4 * E + pixel * E + e[None, :]
        mapped_KE = tl.load(mapped_at, mask=(k < row_count)[:, None], other=0.0)
        image_at = (s[:, None] * 4 + pixel) * E + e[None, :]
        shared_SE = tl.load(shared + image_at, mask=seen_S[:, None], other=0.0).to(tl.float32)
        weight_S = tl.load(weight + prompt_at * tokens + s, mask=seen_S, other=0.0)
        first_SE = tl.dot(rows_SK, mapped_KE, input_precision=PRECISION) * rho_S[:, None]
        first_SE += shared_SE * weight_S[:, None] + tl.load(constant + pixel * E + e)[None, :]
        if FINER:
            first_SE += tl.load(middle + image_at, mask=seen_S[:, None], other=0.0).to(tl.float32)

        # (2)
        centred_SE = first_SE - (tl.sum(first_SE, axis=1) / E)[:, None]
        scale_S = tl.rsqrt(tl.sum(centred_SE * centred_SE, axis=1) / E + eps)
        normal_SE = centred_SE * scale_S[:, None] * tl.load(norm_weight + e)[None, :]
        pixel_SE = _gelu(normal_SE + tl.load(norm_bias + e)[None, :]).to(rows_SK.dtype)

        for under in tl.static_range(4):
            # (3)
            second_EG = tl.load(second + (under * E + e[:, None]) * G + g[None, :])
            fine_SG = tl.dot(pixel_SE, second_EG, input_precision=PRECISION)
            if FINER:
                fine_at = ((s[:, None] * 4 + pixel) * 4 + under) * G + g[None, :]
                fine_SG += tl.load(fine_map + fine_at, mask=seen_S[:, None], other=0.0).to(tl.float32)
            else:
                fine_SG += tl.load(second_bias + g)[None, :]
            fine_SG = _gelu(fine_SG)

            # (4)
            y_S = (s // across) * 4 + (pixel // 2) * 2 + under // 2
            x_S = (s % across) * 4 + (pixel % 2) * 2 + under % 2
            for m in tl.static_range(M):
                if tl.load(keep + prompt * M + m) != 0:
                    direction_G = tl.load(direction + (prompt * M + m) * G + g)
                    logit_S = tl.sum(fine_SG * direction_G[None, :], axis=1)
                    place_S = (prompt_at * M + m) * 16 * tokens + y_S * 4 * across + x_S
                    tl.store(out + place_S, logit_S, mask=seen_S)
