"""Kernels compiled for sm_90 with no GPU, at the shapes of ViT-H and SAM 2.1, and what they then take."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from maskmill.pipeline.gpu.axis_tables import COLUMN_TILE, ROW_TILE
from maskmill.pipeline.gpu.kernels.attention import attention_kernel
from maskmill.pipeline.gpu.kernels.head import head_kernel
from maskmill.pipeline.gpu.kernels.measure import measure_kernel
from maskmill.pipeline.gpu.kernels.runs import runs_kernel
from maskmill.pipeline.gpu.kernels.suppress import suppress_kernel
from maskmill.pipeline.gpu.triton_ops import FUSED, HEAD_BLOCK, UNFUSED, attention_blocks, cut_width

H100 = GPUTarget("cuda", 90, 32)
BF, F32, I32, U8 = "*bf16", "*fp32", "*i32", "*u8"


@dataclass(frozen=True)
class Case:
    """A kernel at one set of shapes: its arguments' types in order, its constants, its options."""

    kernel: Any
    types: tuple[str, ...]
    constants: dict[str, Any]
    options: dict[str, Any] = field(default_factory=lambda: {"num_warps": 4})


def _attention(window: int, channels: int, data: str = BF) -> Case:
    main, rest = cut_width(channels)
    padded, rows, block = attention_blocks(window)
    constants = {"WINDOW": window, "PADDED": padded, "ROWS": rows, "D": main, "R": rest, "BLOCK_M": block}
    return Case(
        attention_kernel,
        (data,) * 5 + ("fp32",) + ("i32",) * 4,
        constants | {"POSITIONS": True, "PRECISION": "ieee"},
        {"num_warps": block // 16, "num_stages": 2, **FUSED},
    )


def _head(rows: int, *, finer: bool, data: str = BF) -> Case:
    pointers = (
        data,
        F32,
        F32,
        data,
        data,
        F32,
        data,
        F32,
        F32,
        data,
        F32,
        data,
        F32,
        U8,
        F32,
    )
    constants = {
        "K": rows,
        "E": 64,
        "G": 32,
        "M": 3,
        "FINER": finer,
        "BLOCK": HEAD_BLOCK,
        "PRECISION": "ieee",
    }
    return Case(
        head_kernel, (*pointers, "fp32", *("i32",) * 4), constants, {"num_warps": 4, "num_stages": 1, **FUSED}
    )


_TILE = {"TILE_Y": ROW_TILE, "TILE_X": COLUMN_TILE, "PATCH_Y": 8, "PATCH_X": 32}
_AXES = (I32, F32, I32, I32, F32, I32)

CASES = {
    "attention, global, 80 channels": _attention(64, 80),
    "attention, global, 64 channels": _attention(64, 64),
    "attention, windows, 80 channels": _attention(14, 80),
    "attention, windows, 64 channels": _attention(14, 64),
    "head": _head(128, finer=False),
    "head, finer maps": _head(128, finer=True),
    "measure": Case(
        measure_kernel,
        (F32, U8, *_AXES, I32, *("i32",) * 6, *("fp32",) * 5),
        _TILE,
        {"num_warps": 8, **UNFUSED},
    ),
    "suppress": Case(
        suppress_kernel, (F32, I32, I32, "fp32", "i32"), {"BLOCK": 4096}, {"num_warps": 32, **UNFUSED}
    ),
    **{
        f"runs, {name}": Case(
            runs_kernel,
            (F32, I32, I32, *_AXES, I32, I32, I32, *("i32",) * 6, *("fp32",) * 3, *("i32",) * 3),
            {"WRITE": write, **_TILE},
            {"num_warps": 4, **UNFUSED},
        )
        for name, write in (("counted", False), ("written", True))
    },
}


@dataclass(frozen=True)
class Resources:
    """What a compiled kernel takes."""

    registers: int
    spilled_bytes: int
    shared_bytes: int


def compiled(case: Case, folder: Path) -> Resources:
    """Compiles for sm_90 and asks the assembler."""
    names = [name for name in case.kernel.arg_names if name not in case.constants]
    signature = dict(zip(names, case.types, strict=True)) | dict.fromkeys(case.constants, "constexpr")
    # Pointers and their strides are what the engine passes: aligned to 16 bytes
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(case.kernel.arg_names)
        if signature[name].startswith("*")
    }
    constants = {(case.kernel.arg_names.index(name),): value for name, value in case.constants.items()}
    source = ASTSource(case.kernel, signature, constexprs=constants, attrs=aligned)
    built = triton.compile(source, target=H100, options=case.options)

    cubin = folder / "kernel.cubin"
    cubin.write_bytes(built.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    said = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True).stdout
    usage = {name: int(count) for name, count in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", said)}
    return Resources(usage["REG"], usage["STACK"] + usage["LOCAL"], int(built.metadata.shared))


def report(folder: Path) -> dict[str, Resources]:
    """Of all cases."""
    return {name: compiled(case, folder) for name, case in CASES.items()}
