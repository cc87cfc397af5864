"""Every command, with every kind of wrong word for each of its parameters: a sentence, and the kind's code.

In this process, so that a thousand of them take seconds. Nothing that they would begin may begin: Ray, a
process of Prefect's, a model.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
import typer

from maskmill.flows.cli import app
from maskmill.flows.services.doctor import held, neighbours
from maskmill.workers.jobs import prove
from maskmill.workers.run import dataset_models
from tests.flows.commands.wrong_places import make_places
from tests.flows.commands.wrong_words import (
    ADDRESS,
    ELSEWHERE,
    FREE,
    WRONG,
    Wrong,
    commands,
    mistakes,
    typed,
)
from tests.workers.published import publish_dataset

PROGRAM = typer.main.get_command(app)  # made once: it takes longer than most of these commands
COMMANDS = {name: command for name, command in commands().items() if name not in ELSEWHERE}
CODES = {"damaged dataset": 3}
"""What a kind ends with; 2 where it isn't here. `verify`, whose answer damage is, ends with 1."""


SLOW = (
    *("ray", "huggingface_hub", "prefect._vendor.croniter", "maskmill.workers.measure.evaluate"),
    *("maskmill.workers.jobs.tune", "maskmill.workers.train.on_ray", "maskmill.workers.exports.hf"),
)


class BegunError(BaseException):
    """Work began in spite of a wrong word."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    for module in SLOW:  # some of them start processes of their own when first imported
        importlib.import_module(module)
    folder = tmp_path_factory.mktemp("wrong")
    return make_places(folder / "places", publish_dataset(folder / "published"))


@pytest.fixture(autouse=True)
def nothing_begins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    def begun(*_: object, **__: object) -> NoReturn:
        raise BegunError

    monkeypatch.setattr("ray.init", begun)
    real = dataset_models.load
    monkeypatch.setattr(dataset_models, "load", lambda settings: begun(real(settings)))
    proved = prove.load_segmenter
    monkeypatch.setattr(prove, "load_segmenter", lambda settings: begun(proved(settings)))
    monkeypatch.setattr("maskmill.workers.page.serve.Server.run", begun)
    monkeypatch.setattr("maskmill.flows.services.doctor.examine.examine", begun)
    monkeypatch.setattr("urllib.request.OpenerDirector.open", begun)
    monkeypatch.setattr(subprocess.Popen, "_execute_child", begun)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("MASKMILL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    yield


def test_every_parameter_has_wrong_words() -> None:
    named = {parameter.name for command in COMMANDS.values() for parameter in command.params}
    assert named == (WRONG.keys() | FREE) & named
    assert sum(1 for name in COMMANDS for _ in mistakes(name, COMMANDS[name])) > 800


@pytest.mark.parametrize("name", COMMANDS)
def test_a_wrong_word_gets_a_sentence_and_its_kinds_code(
    name: str, places: Mapping[str, str], tmp_path: Path
) -> None:
    command, bad = COMMANDS[name], []
    for number, (parameter, one) in enumerate(mistakes(name, command)):
        spot = tmp_path / str(number)
        (spot / "empty").mkdir(parents=True)
        words = filled(typed(name, command, parameter, one), {**places, "tmp": str(spot)})
        fault = fault_of(name, one.kind, words)
        if one.kind == "no dataset" and not fault:
            left = [path.name for path in (*spot.glob("absent*"), *(spot / "empty").iterdir())]
            fault = f"it wrote {left}" if left else None
        if fault:
            bad.append(f"{parameter} ({one.kind}): {words}: {fault}")
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("one", ADDRESS, ids=lambda one: repr(one.words[0][:20]))
def test_the_doctor_finds_a_wrong_place(one: Wrong, places: Mapping[str, str], tmp_path: Path) -> None:
    (word,) = filled([*one.words], {**places, "tmp": str(tmp_path)})
    found = held.store(word, lambda title: None)
    assert found.state == "wrong" and found.says and found.cure


@pytest.mark.parametrize("one", WRONG["ray_address"], ids=lambda one: repr(one.words[0][:20]))
def test_the_doctor_finds_a_wrong_cluster(one: Wrong) -> None:
    findings = list(neighbours.ray_cluster(one.words[0]))
    assert any(found.state == "wrong" and found.says and found.cure for found in findings), findings


def filled(words: list[str], places: Mapping[str, str]) -> list[str]:
    """The words with places instead of their names."""
    return [re.sub(r"\{(\w+)\}", lambda found: places[found[1]], word) for word in words]


def fault_of(name: str, kind: str, words: list[str]) -> str | None:
    """What is wrong with the answer to a wrong command; None if nothing is."""
    told, code = io.StringIO(), None
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        try:
            PROGRAM.main(words, prog_name="maskmill")
        except BegunError:
            return "work began"
        except SystemExit as exc:
            code = exc.code
    wanted = 1 if (name, kind) == ("verify", "damaged dataset") else CODES.get(kind, 2)
    if code != wanted:
        return f"code {code}: {told.getvalue()}"
    text = told.getvalue()
    return None if re.search(r"[a-z]", text) and "Traceback" not in text else f"says {text!r}"
