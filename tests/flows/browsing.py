"""A real browser for tests: Debian's headless Chromium, and Prefect's pages in it."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")


def chromium(*words: str) -> webdriver.Chrome:
    """Debian's headless Chromium with further words of its command line; `quit` ends it."""
    driver = shutil.which("chromedriver")
    if driver is None:
        raise RuntimeError("no chromedriver is installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", *words):
        options.add_argument(word)
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    """A tall one."""
    found = chromium("--window-size=1400,1800")
    yield found
    found.quit()


def shown(browser: webdriver.Chrome, look: Callable[[webdriver.Chrome], T]) -> T:
    """What `look` finds once the page has drawn it."""
    redrawn = (NoSuchElementException, StaleElementReferenceException)
    return WebDriverWait(browser, 60, ignored_exceptions=redrawn).until(look)


def text(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").text


def log_in(browser: webdriver.Chrome, site: str, secret: str) -> None:
    """What a person does whom Prefect's pages ask for the secret."""
    browser.get(site)
    box = shown(browser, lambda page: page.find_element(By.XPATH, "//input[@type='password']"))
    box.send_keys(secret)
    browser.find_element(By.XPATH, "//button[@type='submit']").click()
    shown(browser, lambda page: "Dashboard" in text(page))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def site(folder: Path) -> Iterator[str]:
    """A site of another origin: the files of `folder`, its address."""
    handler = partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
