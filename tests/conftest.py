"""What Ray reads when it is first imported, by whichever test module: a token, and no telemetry."""

from __future__ import annotations

import os

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
