"""torchvision comes without torch's compiler, and works; the compiler comes when somebody asks for it."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import sys
from maskmill.pipeline.segmenters import load_segmenter
from maskmill.pipeline.settings import SegmenterSettings
load_segmenter(SegmenterSettings(device="cpu"))
assert "torchvision" in sys.modules
assert not [name for name in sys.modules if name.startswith(("torch._dynamo", "torch._inductor"))]

import torch
from torchvision.ops import batched_nms, roi_align
boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
assert batched_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3), 0.5).tolist() == [0, 2]
pooled = roi_align(torch.ones(1, 1, 32, 32), [boxes], 2)  # which asks the compiler's module in earnest
assert pooled.shape == (3, 1, 2, 2) and bool((pooled == 1).all())

import torch._dynamo.utils
assert torch._dynamo.utils.__file__.endswith("utils.py")
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist() == [2, 2]
print("well")
"""


def test_a_segmenter_loads_without_the_compiler_and_everything_still_works() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False)
    assert done.stdout == "well\n", done.stderr
