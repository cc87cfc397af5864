"""torchvision without torch's compiler: half of what a worker's imports cost.

torchvision's roi_align asks `torch._dynamo.utils` for one small function while it is imported, and with it
come torch._dynamo, torch._inductor and sympy: 2 s of a core, for an operator that nothing here uses. While
torchvision is imported a stand-in answers in its place; afterwards the real module is there for whoever asks.

Holds for torchvision 0.21 to 0.29; one that doesn't ask is imported as it is.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import Any

_ASKED = "torch._dynamo.utils"


def import_torchvision() -> None:
    """Imports torchvision, and torch's compiler only where somebody already did.

    Raises:
        ImportError: torchvision is not installed, or does not fit this torch.
    """
    if "torchvision" in sys.modules or "torch._dynamo" in sys.modules:
        return
    stand_in = types.ModuleType(_ASKED)

    def real(name: str) -> Any:
        """The real module's attribute, for whatever else is asked of the stand-in; it has no file.

        Raises:
            AttributeError: a special name, which the stand-in has not.
        """
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_ASKED) is stand_in:
            del sys.modules[_ASKED]
        return getattr(importlib.import_module("torch._dynamo.utils"), name)

    def is_compile_supported(device_type: str) -> bool:
        """Asks the real one, when it is called."""
        return bool(real("is_compile_supported")(device_type))

    stand_in.__dict__.update(is_compile_supported=is_compile_supported, __getattr__=real)
    sys.modules[_ASKED] = stand_in
    try:
        import torchvision  # noqa: F401
    finally:
        if sys.modules.get(_ASKED) is stand_in:
            del sys.modules[_ASKED]
