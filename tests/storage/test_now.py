from __future__ import annotations

import time
from datetime import datetime

from maskmill.storage.clock import now_utc


def test_the_time_is_utc_to_the_second() -> None:
    before_s = int(time.time())
    text = now_utc()
    assert text.endswith("+00:00") and len(text) == 25
    assert before_s <= datetime.fromisoformat(text).timestamp() <= time.time()
