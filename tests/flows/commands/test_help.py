"""Help that a person reads: groups, words for values, choices, no Python."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import typer
from typer import Context
from typer.main import get_command
from typer.testing import CliRunner

from maskmill.flows.cli import GROUPS, app
from maskmill.flows.commands.help import Commands

NAMES = [*(name for commands in GROUPS.values() for name in commands), "config"]


def shown(*words: str) -> str:
    """A help page as a terminal of 80 columns has it."""
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [*words, "--help"]).stdout


def test_commands_are_listed_in_their_groups_and_none_is_cut() -> None:
    page = shown()
    assert [page.index(f"\n{title}:") for title in GROUPS] == sorted(page.index(f"\n{t}:") for t in GROUPS)
    for title, commands in GROUPS.items():
        section = page.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        for name in commands:
            assert re.search(rf"^  {name} ", section, re.MULTILINE), (title, name)
    assert "..." not in page.replace("[ARGS]...", "")


@pytest.mark.parametrize("name", NAMES)
def test_no_page_shows_a_type_a_range_or_an_undescribed_value(name: str) -> None:
    page = shown(name)
    assert not re.search(r"<\w+|x>=|list\[|\bNone\b|\bint\b|\bstr\b|\[default|\[required", page), page
    group = get_command(app)
    assert isinstance(group, Commands)
    command = group.commands[name]
    for param in command.params:
        assert getattr(param, "help", None), f"{name}: {param.name} says nothing"
    assert all(len(line) <= 80 for line in page.splitlines())


def test_choices_are_listed_and_completed() -> None:
    assert "--order oldest|worst" in shown("relabel")
    words = {"_MASKMILL_COMPLETE": "complete_bash", "COMP_CWORD": "3"}
    found = subprocess.run(
        [sys.executable, "-c", "from maskmill.flows.cli import app; app(prog_name='maskmill')"],
        env={**os.environ, **words, "COMP_WORDS": "maskmill relabel --order w"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.split() == ["worst"]


@pytest.mark.parametrize(
    ("name", "parameter", "begun", "completed"),
    [
        ("browse", "order", "lowest", ["lowest IoU", "lowest stability"]),
        ("models", "role", "", ["segmenter", "captioner", "filter", "detector", "namer"]),
        ("export", "format", "co", ["coco"]),
        ("generate", "recipe", "sa", ["sa1b", "sam2"]),
    ],
)
def test_words_that_are_listed_elsewhere_are_completed(
    name: str, parameter: str, begun: str, completed: list[str]
) -> None:
    group = get_command(app)
    assert isinstance(group, Commands)
    context = Context(group.commands[name])
    (param,) = (one for one in group.commands[name].params if one.name == parameter)
    assert [found.value for found in param.shell_complete(context, begun)] == completed


def test_usage_names_what_is_needed() -> None:
    assert " DATASET --input IMAGES [OPTIONS]" in shown("generate").splitlines()[0]
    assert " IMAGES... [OPTIONS]" in shown("tune").splitlines()[0]


def test_an_argument_is_called_in_errors_as_in_the_help() -> None:
    shown = CliRunner().invoke(app, ["show", "data"])
    assert shown.exit_code == 2 and "Missing argument 'KEY'" in shown.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt, typer.Abort])
def test_ctrl_c_before_a_command_listens_or_at_its_question_is_a_word_and_130(
    error: type[BaseException],
) -> None:
    stopping = typer.Typer(cls=Commands)

    @stopping.command()
    def one() -> None:
        raise error

    @stopping.command()
    def two() -> None:
        raise AssertionError

    shown = CliRunner().invoke(stopping, ["one"])
    assert (shown.exit_code, shown.stderr) == (130, "\nstopped\n")
