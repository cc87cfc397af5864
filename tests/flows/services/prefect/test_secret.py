"""The API's secret: one file, for its user's eyes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maskmill.flows.services import state as up_state
from maskmill.flows.services.prefect.secret import keep_secret, read_secret, secret_path
from maskmill.flows.services.prefect.server import PrefectServer, start_server, stop_server, wait_ready


@pytest.fixture(autouse=True)
def no_secret_of_mine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING", "PREFECT_API_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_it_is_made_once_for_its_user_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert read_secret(home) is None
    made = keep_secret(home)
    user, _, password = made.partition(":")
    assert user == "maskmill" and len(password) >= 32
    assert secret_path(home).stat().st_mode & 0o777 == 0o600
    assert keep_secret(home) == made == read_secret(home)
    assert [path.name for path in home.iterdir()] == ["api-secret"]


def test_one_that_others_could_read_is_made_anew(tmp_path: Path) -> None:
    made = keep_secret(tmp_path)
    secret_path(tmp_path).chmod(0o644)
    assert read_secret(tmp_path) is None
    assert keep_secret(tmp_path) != made
    assert secret_path(tmp_path).stat().st_mode & 0o777 == 0o600


def test_the_users_own_is_kept_for_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_secret(tmp_path)
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "me:mine")
    assert keep_secret(tmp_path) == "me:mine" == read_secret(tmp_path)


@pytest.mark.parametrize("named", [None, "http://127.0.0.1:1/api", "http://localhost:1/api/"])
def test_commands_take_it_for_the_server_it_belongs_to(
    named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MASKMILL_HOME", str(tmp_path))
    state = '{"pid": %d, "api_url": "http://127.0.0.1:1/api", "ray_address": null, "pool": "maskmill", '
    (tmp_path / "up.json").write_text(state % os.getpid() + '"started_s": 0, "children": {}, "ready": true}')
    secret = keep_secret(tmp_path)
    if named:
        monkeypatch.setenv("PREFECT_API_URL", named)
    up_state.use_server()
    assert os.environ["PREFECT_API_AUTH_STRING"] == secret
    assert os.environ["PREFECT_API_URL"] == named or named is None


def test_another_server_never_gets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKMILL_HOME", str(tmp_path))
    state = '{"pid": %d, "api_url": "http://127.0.0.1:1/api", "ray_address": null, "pool": "maskmill", '
    (tmp_path / "up.json").write_text(state % os.getpid() + '"started_s": 0, "children": {}, "ready": true}')
    keep_secret(tmp_path)
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere:1/api")
    up_state.use_server()
    assert "PREFECT_API_AUTH_STRING" not in os.environ
    assert not up_state.serves("maskmill")


@pytest.mark.ray
def test_a_runs_own_server_has_one_too(tmp_path: Path) -> None:
    import json
    import urllib.error
    import urllib.request

    from maskmill.flows.services.prefect.api import PrefectApi

    def refused(server: PrefectServer, **headers: str) -> int:
        request = urllib.request.Request(f"{server.url}/work_pools/filter", b"{}", headers, method="POST")
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(request, timeout=30)
        with error.value as answer:
            return answer.code

    server = start_server({**os.environ, "PREFECT_HOME": str(tmp_path)})
    try:
        wait_ready(server)
        assert server.secret not in repr(server)
        api = PrefectApi(server.url, server.secret)
        assert api.send("work_pools/filter", {}) == []
        token = api._change_token()
        assert refused(server, **{"Content-Type": "application/json", **token}) == 401, "no secret"
        assert refused(server, **{"Content-Type": "application/json", **api._auth}) == 403, "no token"
        assert json.dumps(token) != "{}"
    finally:
        stop_server(server)
