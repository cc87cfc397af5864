"""Who may make this machine run something through Prefect's server: nobody without the secret, no page of
another origin even with it, and no deployment by a command of its own."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver

from maskmill.flows.services.prefect.api import PrefectApi
from maskmill.flows.services.prefect.pools import RUN_ENVIRONMENT
from maskmill.flows.services.prefect.secret import read_secret
from tests.flows.asking import ask, post
from tests.flows.browsing import browser, log_in, site
from tests.flows.running import Up, running_up, until

__all__ = ["browser"]

PAGE = """<html><body><script>
async function attack(api, headers, variables) {
  headers = Object.assign({"Content-Type": "application/json"}, headers);
  const post = async (path, body) => {
    const answer = await fetch(api + path, {method: "POST", headers, body: JSON.stringify(body)});
    const said = await answer.json();
    if (!answer.ok) throw new Error(answer.status + " " + JSON.stringify(said));
    return said.id;
  };
  try {
    const flow = await post("/flows/", {name: "x"});
    const deployment = await post("/deployments/", {name: "x", flow_id: flow,
      entrypoint: "maskmill.flows.deployments.relabel.relabel", work_pool_name: "maskmill",
      job_variables: variables});
    return "started " + await post("/deployments/" + deployment + "/create_flow_run",
      {state: {type: "SCHEDULED"}});
  } catch (error) { return String(error); }
}
</script></body></html>"""


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with running_up(tmp_path_factory.mktemp("up")) as found:
        yield found


def attack(browser: webdriver.Chrome, api: str, headers: dict[str, str], command: str) -> str:
    """What became of a page's try to have a command run."""
    code = "attack(arguments[0], arguments[1], arguments[2]).then(arguments[3])"
    return str(browser.execute_async_script(code, api, headers, {"command": command}))


@pytest.mark.browser
@pytest.mark.timeout(300)
def test_a_page_of_another_origin_starts_nothing(up: Up, browser: webdriver.Chrome, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(PAGE)
    mark = tmp_path / "the command ran"
    with site(tmp_path) as foreign:
        log_in(browser, up.url.removesuffix("/api"), str(read_secret(up.home)))
        browser.get(foreign)
        for headers in ({}, up.api._auth, {**up.api._auth, **up.api._change_token()}):
            for api in (up.url, up.url.replace("127.0.0.1", "localhost")):
                said = attack(browser, api, headers, f"touch '{mark}'")
                assert "Failed to fetch" in said, "the browser was told not to"
        simple = "fetch(arguments[0], {method: 'POST', body: '{}', mode: 'no-cors'}).then(arguments[1])"
        browser.execute_async_script(simple, f"{up.url}/flows/")
    assert ask(up.api, "deployments") == [] == ask(up.api, "flows")
    assert not mark.exists()


@pytest.mark.ray
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("flows/", {"name": "x"}),
        ("flow_runs/filter", {}),
        ("deployments/filter", {}),
        ("admin/version", None),
    ],
)
def test_without_the_secret_nothing_is_told_or_done(up: Up, path: str, body: dict[str, Any] | None) -> None:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **up.api._change_token()}
    wrong = PrefectApi(up.url, "maskmill:guessed")._auth
    for more in ({}, wrong):
        request = urllib.request.Request(f"{up.url}/{path}", data, {**headers, **more})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=30)
        with refused.value as answer:
            assert answer.code == 401


@pytest.mark.ray
@pytest.mark.parametrize(
    "variables",
    [
        {"command": "touch /tmp/x"},
        {"working_dir": "/tmp"},
        {"env": {"PYTHONPATH": "/tmp"}},
        {"env.PYTHONPATH": "/tmp"},
        {"env": {"PREFECT_CLIENT_MAX_RETRIES": "11"}},
    ],
)
def test_job_variables_are_refused_by_the_pool_even_with_the_secret(
    up: Up, variables: dict[str, Any]
) -> None:
    flow = post(up.api, "flows/", {"name": "mine"})["id"]
    body = {"name": "x", "flow_id": flow, "work_pool_name": "maskmill", "job_variables": variables}
    with pytest.raises(urllib.error.HTTPError) as refused:
        up.api.send("deployments/", body)
    with refused.value as answer:
        assert answer.code == 422


@pytest.mark.ray
def test_a_command_that_gets_past_the_refusal_is_not_run(up: Up, tmp_path: Path) -> None:
    """The server checks where a deployment is made; a change to one passes unchecked (Prefect 3.9.1)."""
    flow = post(up.api, "flows/", {"name": "mine"})["id"]
    body = {
        "name": "changed",
        "flow_id": flow,
        "work_pool_name": "maskmill",
        "entrypoint": "no.such.module",
        "job_variables": {"env": RUN_ENVIRONMENT},  # as deployments of earlier versions have it
    }
    made = post(up.api, "deployments/", body)["id"]
    mark = tmp_path / "ran"
    run = post(up.api, f"deployments/{made}/create_flow_run", {"state": {"type": "SCHEDULED"}})["id"]
    until(lambda: up.look(run)["state_type"] in ("CRASHED", "FAILED"), "an unknown flow fails")
    changed = {"job_variables": {"command": f"touch {mark}", "env": {"MARK": "1"}}}
    up.api.send(f"deployments/{made}", changed, method="PATCH")
    schedule = {"schedule": {"rrule": "FREQ=SECONDLY;INTERVAL=5"}, "active": True}
    up.api.send(f"deployments/{made}/schedules", [schedule])

    def scheduled() -> list[dict[str, Any]]:
        ended = [found for found in ask(up.api, "flow_runs") if found["state_type"] in ("CRASHED", "FAILED")]
        return [found for found in ended if found["auto_scheduled"]]

    until(scheduled, "a run of the schedule ended")
    assert not mark.exists()
