#!/usr/bin/env bash
# Everything that a GPU is to be asked, in at most five minutes: benchmarks/gpu/run.sh [OUT]
#
# It needs torch, triton, numba, numpy, PIL, transformers and segment_anything. Where the machine lacks
# segment_anything and cannot fetch it, put it beside the code first:
#     pip install --no-deps --target build/gpu-site segment-anything
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-build/gpu}
export PYTHONPATH="$PWD:$PWD/build/gpu-site${PYTHONPATH:+:$PYTHONPATH}"
export TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-$out/triton}"
mkdir -p "$out"
exec timeout 300 "${PYTHON:-python3}" -m benchmarks.gpu.run --out "$out" --limit 290 "${@:2}"
