"""Who may ask the page, and what a browser may do with its answers."""

from __future__ import annotations

import pytest

from tests.workers.page.conftest import PORT, SITE, TOKEN, Asked


def test_without_the_token_there_is_nothing(page: Asked) -> None:
    for path in ("/", "/api/about", "/static/page.css", "/wrong/api/about", f"/{TOKEN}", f"/{TOKEN}x/", "//"):
        answer = page.client.get(path)
        assert answer.status_code == 403, path
        assert "maskmill browse" in answer.text
        assert page.published.store.root not in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}"]
)
def test_another_host_name_is_refused_token_or_not(page: Asked, host: str) -> None:
    assert page.client.get(f"/{TOKEN}/api/about", headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", f"http://127.0.0.1:{PORT + 1}", f"https://127.0.0.1:{PORT}"]
)
def test_a_page_of_another_origin_saves_and_reads_nothing(page: Asked, origin: str) -> None:
    body = {"key": "000000001", "who": "eve"}
    answer = page.client.post(f"/{TOKEN}/api/review/here", json=body, headers={"origin": origin})
    assert answer.status_code == 403
    assert page.client.get(f"/{TOKEN}/api/about", headers={"origin": origin}).status_code == 403
    assert not list(page.published.store.list("review/"))


def test_what_a_browser_says_of_other_sites_counts(page: Asked) -> None:
    cross = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert page.client.get(f"/{TOKEN}/api/about", headers=cross).status_code == 403
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert page.client.get(f"/{TOKEN}/", headers=followed).status_code == 200  # a link in a chat
    assert page.client.get(f"/{TOKEN}/api/about", headers={"origin": SITE}).status_code == 200


def test_every_answer_forbids_foreign_and_inline_scripts(page: Asked) -> None:
    for path in (f"/{TOKEN}/", f"/{TOKEN}/static/main.js", f"/{TOKEN}/api/about", f"/{TOKEN}/nothing", "/"):
        headers = page.client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy, path
        assert "unsafe" not in policy and "frame-ancestors 'none'" in policy, path
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


def test_the_page_has_no_script_or_style_of_its_own(page: Asked) -> None:
    text = page.client.get(f"/{TOKEN}/").text
    assert text.count("<script") == 1 and '<script type="module" src="static/main.js"></script>' in text
    assert "<style" not in text and " style=" not in text and " onclick" not in text and "http" not in text


def test_a_body_that_is_too_large_is_refused_unread(page: Asked) -> None:
    headers = {"content-length": str(1 << 40), "content-type": "application/json"}
    answer = page.client.post(f"/{TOKEN}/api/review/save", content=b"{}", headers=headers)
    assert answer.status_code == 413
