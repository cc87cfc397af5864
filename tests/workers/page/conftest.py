"""A published dataset behind the page's door, without a browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from maskmill.pipeline.settings import SegmenterSettings
from maskmill.workers.page.app import make_app
from maskmill.workers.page.session import Session
from tests.workers.published import Published, publish_dataset

TOKEN, PORT = "a-token", 8123
SITE = f"http://127.0.0.1:{PORT}"


@dataclass(frozen=True)
class Asked:
    """The page's addresses, with the token in front."""

    client: TestClient
    session: Session
    published: Published

    def get(self, path: str, **values: Any) -> Any:
        """What a path answers, which must be JSON of status 200."""
        answer = self.client.get(f"/{TOKEN}/{path}", params=values)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, path: str, body: Any, status: int = 200) -> Any:
        """The same of a POST."""
        answer = self.client.post(f"/{TOKEN}/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def keys(self, **values: Any) -> list[str]:
        """The keys of a page of pictures."""
        return [one["key"] for one in self.pictures(**values)]

    def pictures(self, **values: Any) -> list[Any]:
        """A page of pictures, once it is full or the search has ended, however slow the machine is."""
        while True:
            found = self.get("api/pictures", **values)
            is_full = len(found["pictures"]) == values.get("limit", 60)
            if found["complete"] or (is_full and values.get("sort", "key") == "key"):
                return list(found["pictures"])


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Asked]:
    """Ten pictures, nine of them with masks, in shards of four."""
    published = publish_dataset(tmp_path)
    session = Session(
        published.store, published.generation, person="ana", segmenter=SegmenterSettings(model="nano")
    )
    client = TestClient(make_app(session, token=TOKEN, port=PORT), base_url=SITE)
    yield Asked(client, session, published)
    client.close()
    session.close()
