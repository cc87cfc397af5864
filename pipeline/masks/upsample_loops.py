"""The compiled loops under upsample.py.

The kernels walk bands of output rows that share their taps (upsample_axes.py), cut each band into segments of
one kind, and compute values only where some pixel may lie on either side of a level (upsample.py). All
in one file, since numba's cache notices a change of a kernel's own file only.

Shape legend: N masks; H, W the logits' height and width; M the middle grid; L the outputs; G groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding
from numba import types
from numba.extending import intrinsic

from maskmill.pipeline.machine.compiled import kernel
from maskmill.pipeline.masks.upsample_axes import Axis, Flags, Floats, Indices, Ints

# How far a weighed sum of equal taps may stray from them, relatively: 16 roundings of 2**-24 are below 1e-6.
ROUNDING = 4e-6

# The bits of a block's kind, see _classify.
SOME, NOT_ALL = 1, 2


def _fuses() -> bool:
    """Whether this machine has a fused multiply-add; torch's kernels use it where it has."""
    x86 = binding.get_process_triple().startswith(("x86_64", "i686"))
    return not x86 or bool(binding.get_host_cpu_features().get("fma", False))


def _fused_multiply_add(typing_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c in float32 with one rounding, where the machine can."""
    fused = _fuses()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        """LLVM's instruction, or its two halves."""
        if fused:
            return builder.fma(*arguments)
        return builder.fadd(builder.fmul(arguments[0], arguments[1]), arguments[2])

    return types.float32(types.float32, types.float32, types.float32), generate


_fma: Any = intrinsic(_fused_multiply_add)


@kernel
def _classify(
    logits_HW: Floats, low: np.float32, high: np.float32, kinds_HW: Flags, extents: Indices
) -> tuple[int, int]:
    """The kind of each logit, in bits, so that a block's kind is the `or` of its logits'.

    SOME: above low; NOT_ALL: not above high. Writes each row's first and last column above low into
    extents[H, 2] (W and -1 where there is none); returns the first and last row above low, or (-1, -1).
    """
    height, width = logits_HW.shape
    top, bottom = -1, -1
    for k in range(height):
        row, kinds = logits_HW[k], kinds_HW[k]
        found = np.uint8(0)
        for c in range(width):
            kind = np.uint8(row[c] > low) | (np.uint8(not row[c] > high) << 1)
            kinds[c] = kind
            found |= kind

        # The row's extent above low
        left, right = width, -1
        if found & SOME:
            left, right = 0, width - 1
            while not kinds[left] & SOME:
                left += 1
            while not kinds[right] & SOME:
                right -= 1
            bottom = k
            if top < 0:
                top = k

        extents[k, 0], extents[k, 1] = left, right
    return top, bottom


@kernel
def _segments(
    kinds_HW: Flags,
    extents: Indices,
    rows: Axis,
    group: int,
    columns: Axis,
    kinds_W: Flags,
    segments: Indices,
) -> int:
    """Cuts the band of one group of rows where its kind changes.

    Writes rows (from, up to, kind) of `segments` from the first column group with a logit above the low level
    to the last, and returns their count. Kind NOT_ALL: all below the low level; SOME: all above the high one;
    both bits: values are needed.
    """
    first_row, last_row = rows.group_taps[0, group], rows.group_taps[1, group]
    left, right = extents[first_row, 0], extents[first_row, 1]
    for k in range(first_row + 1, last_row + 1):
        left, right = min(left, extents[k, 0]), max(right, extents[k, 1])
    if right < 0:
        return 0
    for c in range(left, right + 1):
        kinds_W[c] = kinds_HW[first_row, c]
    for k in range(first_row + 1, last_row + 1):
        for c in range(left, right + 1):
            kinds_W[c] |= kinds_HW[k, c]
    stop_group = columns.starts_at[right + 1]
    at_group = columns.ends_at[left]
    count = 0
    at = left
    while at <= right:
        # a stretch of logits of one kind; groups that lie wholly within it, and those that straddle its start
        kind = kinds_W[at]
        start = at
        while at <= right and kinds_W[at] == kind:
            at += 1
        inside_from, inside_upto = columns.starts_at[start], columns.ends_at[at]
        if inside_from > at_group:
            count = _append(segments, count, columns.group_start, at_group, inside_from, SOME | NOT_ALL)
            at_group = inside_from
        if inside_upto > at_group:
            count = _append(segments, count, columns.group_start, at_group, inside_upto, kind)
            at_group = inside_upto
    if at_group < stop_group:
        count = _append(segments, count, columns.group_start, at_group, stop_group, SOME | NOT_ALL)
    return count


@kernel
def _append(segments: Indices, count: int, group_start: Indices, first: int, stop: int, kind: int) -> int:
    """Adds the groups first ... stop - 1 as a segment, or to the last one if that is of the same kind."""
    if count == 0 or segments[count - 1, 2] != kind:
        segments[count, 0] = group_start[first]
        segments[count, 2] = kind
        count += 1
    segments[count - 1, 1] = group_start[stop]
    return count


@kernel
def _values(
    logits_HW: Floats,
    rows: Axis,
    columns: Axis,
    group: int,
    start: int,
    stop: int,
    scratch: Floats,
    left_ML: Floats,
    right_ML: Floats,
    out_RL: Floats,
) -> None:
    """The upsampled logits of one group's rows, columns start ... stop - 1, into out_RL[:, :stop - start].

    scratch is [5, at least the middle grid's width]; left_ML and right_ML hold, for each middle row of the
    group, the values at the outputs' left and right taps.
    """
    num = stop - start
    first_x = columns.taps[0, start]
    num_x = columns.taps[1, stop - 1] - first_x + 1
    taps_0, taps_1 = columns.taps[0, start:stop], columns.taps[1, start:stop]
    top, bottom = rows.group_start[group], rows.group_start[group + 1]
    first_m = rows.taps[0, top]
    a, b, c, d, middle = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4, :num_x]
    left_weights = columns.middle_weights[0, first_x : first_x + num_x]
    right_weights = columns.middle_weights[1, first_x : first_x + num_x]
    at = -1
    for m in range(first_m, rows.taps[1, bottom - 1] + 1):
        if rows.middle_taps[0, m] != at:
            at = rows.middle_taps[0, m]
            _spread(logits_HW[at], logits_HW[rows.middle_taps[1, m]], columns, first_x, num_x, scratch)
        upper, lower = rows.middle_weights[0, m], rows.middle_weights[1, m]
        _blend(middle, a, b, c, d, upper, lower, left_weights, right_weights)
        left, right = left_ML[m - first_m], right_ML[m - first_m]
        for i in range(num):
            left[i] = middle[np.uintp(taps_0[i] - first_x)]  # unsigned: no test for a negative index
            right[i] = middle[np.uintp(taps_1[i] - first_x)]
    left_weights, right_weights = columns.weights[0, start:stop], columns.weights[1, start:stop]
    for r in range(bottom - top):
        m0, m1 = rows.taps[0, top + r] - first_m, rows.taps[1, top + r] - first_m
        upper, lower = rows.weights[0, top + r], rows.weights[1, top + r]
        a, b, c, d = left_ML[m0], right_ML[m0], left_ML[m1], right_ML[m1]
        _blend(out_RL[r, :num], a, b, c, d, upper, lower, left_weights, right_weights)


@kernel
def _spread(upper: Floats, lower: Floats, columns: Axis, first_x: int, num_x: int, scratch: Floats) -> None:
    """Two rows of logits at the left and right taps of the middle grid's columns."""
    for i in range(num_x):
        x0 = np.uintp(columns.middle_taps[0, first_x + i])
        x1 = np.uintp(columns.middle_taps[1, first_x + i])
        scratch[0, i], scratch[1, i] = upper[x0], upper[x1]
        scratch[2, i], scratch[3, i] = lower[x0], lower[x1]


@kernel
def _blend(
    out: Floats,
    a: Floats,
    b: Floats,
    c: Floats,
    d: Floats,
    upper: np.float32,
    lower: np.float32,
    left: Floats,
    right: Floats,
) -> None:
    """a b are the upper row's left and right taps, c d the lower's; in the order of torch's kernel."""
    for i in range(out.size):
        value = _fma(a[i], upper * left[i], b[i] * (upper * right[i]))
        out[i] = _fma(d[i], lower * right[i], _fma(c[i], lower * left[i], value))


@kernel
def _buffers(rows: Axis, columns: Axis) -> tuple[Floats, Floats, Floats, Floats, Indices]:
    """scratch, left_ML, right_ML and out_RL for `_values`, and `segments`."""
    width = columns.taps.shape[1]
    num_groups = rows.group_start.size - 1
    most_rows, most_middle = 0, 0
    for g in range(num_groups):
        first, stop = rows.group_start[g], rows.group_start[g + 1]
        most_rows = max(most_rows, stop - first)
        most_middle = max(most_middle, rows.taps[1, stop - 1] - rows.taps[0, first] + 1)
    return (
        np.empty((5, columns.middle_taps.shape[1]), np.float32),
        np.empty((most_middle, width), np.float32),
        np.empty((most_middle, width), np.float32),
        np.empty((most_rows, width), np.float32),
        np.empty((columns.group_start.size, 3), np.int32),
    )


@kernel
def measure_masks(
    logits_NHW: Floats, rows: Axis, columns: Axis, levels: Floats, only_box: bool, out_NK: Ints
) -> None:
    """Adds to out_NK[:, :3] the counts above levels (ascending); sets [:, 3:] to the box above levels[1].
    With `only_box` the counts mean nothing: blocks of one side come first, then values beyond their box.
    """
    num_masks, height, width = logits_NHW.shape
    kinds_HW, kinds_W = np.empty((height, width), np.uint8), np.empty(width, np.uint8)
    extents = np.empty((height, 2), np.int32)
    scratch, left_ML, right_ML, values_RL, segments = _buffers(rows, columns)
    slack = np.float32(ROUNDING)
    low, high = levels[0] - slack * abs(levels[0]), levels[2] + slack * abs(levels[2])

    for n in range(num_masks):
        logits_HW, out = logits_NHW[n], out_NK[n]
        top, bottom = _classify(logits_HW, low, high, kinds_HW, extents)
        if top < 0:
            continue

        box = out[3:]
        box[0], box[1], box[2], box[3] = columns.taps.shape[1], rows.taps.shape[1], -1, -1

        # Blocks of one side count at once, bands by their values
        for sweep in range(1 + only_box):
            for g in range(rows.ends_at[top], rows.starts_at[bottom + 1]):
                count = _segments(kinds_HW, extents, rows, g, columns, kinds_W, segments)
                y0, y1 = rows.group_start[g], rows.group_start[g + 1]
                for s in range(count):
                    x0, x1, kind = segments[s]
                    if kind == SOME:
                        for level in range(3):
                            out[level] += (x1 - x0) * (y1 - y0)
                        _grow(box, x0, y0, x1 - 1, y1 - 1)
                    elif kind == SOME | NOT_ALL and sweep == only_box:
                        if only_box and box[1] <= y0 and y1 - 1 <= box[3]:
                            x0, x1 = _beside(box, x0, x1)
                            if x0 >= x1:
                                continue
                        _values(logits_HW, rows, columns, g, x0, x1, scratch, left_ML, right_ML, values_RL)
                        for r in range(y1 - y0):
                            _count(values_RL[r, : x1 - x0], x0, y0 + r, levels, out, box)

        if out[1] == 0:
            box[:] = 0


@kernel
def _beside(box: Ints, start: int, stop: int) -> tuple[int, int]:
    """What of the columns start ... stop - 1 can widen the box; start is not below stop where none can."""
    first = max(start, box[2] + 1) if start >= box[0] else start
    return first, min(stop, box[0]) if stop - 1 <= box[2] else stop


@kernel
def _grow(box: Ints, left: int, top: int, right: int, bottom: int) -> None:
    box[0] = min(box[0], left)
    box[1] = min(box[1], top)
    box[2] = max(box[2], right)
    box[3] = max(box[3], bottom)


@kernel
def _count(values: Floats, x: int, y: int, levels: Floats, counts: Ints, box: Ints) -> None:
    """Counts one row's values above the three levels and grows the box by those above levels[1]."""
    low, middle, high = levels[0], levels[1], levels[2]
    above_low, above_middle, above_high = 0, 0, 0
    for i in range(values.size):
        above_low += values[i] > low
        above_middle += values[i] > middle
        above_high += values[i] > high
    counts[0] += above_low
    counts[1] += above_middle
    counts[2] += above_high
    if above_middle == 0:
        return
    left, right = 0, values.size - 1
    while not values[left] > middle and x + left < box[0]:
        left += 1
    while not values[right] > middle and x + right > box[2]:
        right -= 1
    _grow(box, x + left, y, x + right, y)


@kernel
def toggles(logits_HW: Floats, rows: Axis, columns: Axis, level: np.float32) -> tuple[Indices, Indices, int]:
    """Where the mask above `level` changes down its columns: columns, rows and their number, by row.

    Each column starts with 0s above its first row and is closed with 0s, at the latest below its last row,
    so it has an even number of changes.
    """
    height, width = logits_HW.shape
    kinds_HW, kinds_W = np.empty((height, width), np.uint8), np.empty(width, np.uint8)
    extents = np.empty((height, 2), np.int32)
    scratch, left_ML, right_ML, values_RL, segments = _buffers(rows, columns)
    slack = np.float32(ROUNDING) * abs(level)
    top, bottom = _classify(logits_HW, level - slack, level + slack, kinds_HW, extents)
    num_columns = columns.taps.shape[1]
    xs, ys = np.empty(4 * num_columns, np.int32), np.empty(4 * num_columns, np.int32)
    if top < 0:
        return xs, ys, 0
    used = 0
    mask_L = np.zeros(num_columns, np.uint8)  # the mask's last row so far
    for g in range(rows.ends_at[top], rows.starts_at[bottom + 1]):
        count = _segments(kinds_HW, extents, rows, g, columns, kinds_W, segments)
        y0, y1 = rows.group_start[g], rows.group_start[g + 1]
        if used + (y1 - y0 + 1) * num_columns > xs.size:  # the worst case, and the closing row
            xs, ys = _longer(xs, (y1 - y0) * num_columns), _longer(ys, (y1 - y0) * num_columns)
        done = 0  # columns beside the segments are empty
        for s in range(count):
            x0, x1, kind = segments[s]
            if s == 0:
                used = _change_all(0, mask_L[:x0], 0, y0, xs, ys, used)
            done = x1
            if kind != SOME | NOT_ALL:
                used = _change_all(kind & SOME, mask_L[x0:x1], x0, y0, xs, ys, used)
                continue
            _values(logits_HW, rows, columns, g, x0, x1, scratch, left_ML, right_ML, values_RL)
            for r in range(y1 - y0):
                used = _change_to(values_RL[r, : x1 - x0], level, mask_L[x0:x1], x0, y0 + r, xs, ys, used)
        used = _change_all(0, mask_L[done:], done, y0, xs, ys, used)
    last_row = rows.group_start[rows.starts_at[bottom + 1]]
    used = _change_all(0, mask_L, 0, last_row, xs, ys, used)
    return xs, ys, used


@kernel
def _longer(old: Indices, more: int) -> Indices:
    new = np.empty(2 * old.size + more, np.int32)
    for i in range(old.size):
        new[i] = old[i]
    return new


@kernel
def _change_to(
    values: Floats, level: np.float32, state: Flags, x: int, y: int, xs: Indices, ys: Indices, used: int
) -> int:
    """Sets `state` to values > level, noting each change at row y; the number of changes noted so far."""
    for i in range(values.size):
        above = np.uint8(values[i] > level)
        if above != state[i]:
            state[i] = above
            xs[used], ys[used] = x + i, y
            used += 1
    return used


@kernel
def _change_all(above: int, state: Flags, x: int, y: int, xs: Indices, ys: Indices, used: int) -> int:
    """As `_change_to`, all values on one side."""
    different = 0
    for i in range(state.size):
        different += state[i] != above
    if different == 0:
        return used
    for i in range(state.size):
        if state[i] != above:
            state[i] = above
            xs[used], ys[used] = x + i, y
            used += 1
    return used
