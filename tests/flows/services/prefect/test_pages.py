"""Prefect's pages in a real browser: a person changes a setting in the form, and sees what came of it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from maskmill.flows.config import load_config
from maskmill.flows.services.prefect.secret import read_secret
from maskmill.storage.dataset.generations import latest
from maskmill.storage.stores.open import open_store
from tests.fakes import write_pictures
from tests.flows.asking import ask
from tests.flows.browsing import browser, log_in, shown, text
from tests.flows.running import Up, running_up, until
from tests.flows.runs.test_relabel import SETS, annotate

__all__ = ["browser"]

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def label(browser: webdriver.Chrome, name: str) -> WebElement | None:
    """A field's label in the form; None before the form is there."""
    found = browser.find_elements(By.XPATH, f"//label[starts-with(normalize-space(.), '{name}')]")
    return found[0] if found else None


def submitted(browser: webdriver.Chrome, up: Up) -> list[dict[str, Any]]:
    """The run that the form starts. A lost click is given again."""
    for _ in range(3):
        browser.find_element(By.XPATH, "//button[@type='submit']").click()
        with contextlib.suppress(AssertionError):
            found: list[dict[str, Any]] = until(lambda: ask(up.api, "flow_runs"), "a run", timeout_s=40.0)
            return found
    raise AssertionError("the form started no run")


def test_a_threshold_changed_in_the_form_is_relabeled_and_shown(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "inputs", 2)
    root = str(tmp_path / "data")
    annotate(root, [str(tmp_path / "inputs")], load_config("nano", sets=SETS))
    with running_up(tmp_path) as up:
        site = up.url.removesuffix("/api")
        up.run("deploy", root, "--flow", "relabel", *(word for pair in SETS for word in ("--set", pair)))
        (deployment,) = ask(up.api, "deployments")

        log_in(browser, site, str(read_secret(up.home)))
        browser.get(f"{site}/deployments/deployment/{deployment['id']}/run")
        threshold = shown(browser, lambda page: label(page, "Predicted Iou"))
        assert threshold is not None
        for name in ("Max Shorter Side Px", "Points Per Side", "max_shards", "sign_off"):
            assert label(browser, name), name
        box = threshold.find_element(By.XPATH, "../..//input")
        assert box.get_attribute("value") == "0.2", "the deployment's own setting"
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys("0.4")
        (run,) = submitted(browser, up)
        until(lambda: up.look(run["id"])["state_type"] == "COMPLETED", "it ends")
        generation = latest(open_store(root))
        assert generation is not None and generation.number == 2
        assert generation.settings["masks"]["predicted_iou"] == 0.4

        browser.get(f"{site}/runs/flow-run/{run['id']}")
        shown(browser, lambda page: "Completed" in text(page) and "publish" in text(page))
        browser.get(f"{site}/artifacts")
        shown(browser, lambda page: "2 of 2 images" in text(page))
        assert "maskmill-diff" in text(browser) and "generation 1 -> 2" in text(browser)
        (picture,) = [found for found in ask(up.api, "artifacts") if found["type"] == "image"]
        browser.get(f"{site}/artifacts/artifact/{picture['id']}")
        shown(browser, lambda page: page.find_element(By.TAG_NAME, "img").get_property("naturalWidth") > 100)
