"""Every maskmill command in infra/ and in the docs is one that the parser takes; infra/ holds no secret."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from maskmill.flows.cli import app

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


def test_the_policy_has_least_rights() -> None:
    policy = json.loads((INFRA / "aws" / "policy.json").read_text())
    allowed = [statement for statement in policy["Statement"] if statement["Effect"] == "Allow"]
    assert all("*" not in action for statement in allowed for action in statement["Action"])
    assert all(statement["Resource"] != "*" for statement in allowed)
    explained = (INFRA / "aws" / "README.md").read_text()
    for statement in allowed:
        for action in statement["Action"]:
            assert action in explained


def test_no_file_holds_a_secret_nor_a_word_in_a_secrets_place() -> None:
    for path in INFRA.rglob("*"):
        if path.is_file() and path.parent.name != "locks":  # which hold hashes
            text = path.read_text()
            assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|[0-9a-f]{64}|change-?me", text, re.I), path


def commands() -> Iterator[tuple[str, str]]:
    """Every maskmill command in code: of infra/'s files, and of the docs' code blocks and backticks."""
    for path in [*sorted(INFRA.rglob("*")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]:
        if not path.is_file() or path.suffix in (".jpg", ".png"):
            continue
        text = path.read_text().replace("\\\n#", "\\\n").replace("\\\n", " ")
        text = re.sub(r"entrypoint: >-\n((?:    .*\n)+)", lambda m: f"#   {' '.join(m[1].split())}\n", text)
        if path.suffix == ".md":
            blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
            lines = re.findall(r"^(?:\$ )?(maskmill [^\n]*)", "\n".join(blocks), re.M)
            prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
            lines += re.findall(r"`(maskmill [^`]+)`", prose)
        else:
            lines = re.findall(r"^#   +(?:docker \S+ -f \S+ exec worker )?(maskmill [^\n]*)", text, re.M)
            lines += re.findall(r"`(maskmill [^`\n]+)`", text)
        yield from ((str(path.relative_to(ROOT)), " ".join(line.split(" # ")[0].split())) for line in lines)


@pytest.mark.parametrize(("place", "line"), [pytest.param(*found, id=found[1][:60]) for found in commands()])
def test_every_command_that_is_named_is_one(place: str, line: str) -> None:
    """Whole commands go through the parser; one that is only mentioned, or shortened, must be there."""
    words = ["1" if word == "N" else word for word in shlex.split(re.sub(r"[\[\]]", "", line))[1:]]
    words = words[
        : next((i for i, word in enumerate(words) if word in ("|", "&&", ">", "&", ";")), len(words))
    ]
    shortened = any(word in ("...", "…") for word in words)
    group: Any = typer.main.get_command(app)
    command, context, name = group, group.context_class(group, info_name="maskmill"), "maskmill"
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name, *words = words
        assert name in command.commands, f"{place}: {line}: there is no command {name!r}"
        command = command.commands[name]
    known = {
        option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)
    }
    options = {word.split("=")[0] for word in words if word.startswith("--")}
    if getattr(command, "context_settings", {}).get("ignore_unknown_options"):
        return  # `maskmill prefect`: the words are Prefect's own
    assert options <= known | {"--help"}, f"{place}: {line}: unknown {options - known}"
    if shortened or len(words) < 2:
        return
    try:
        command.make_context(name, list(words), parent=context)
    except Exception as error:  # noqa: BLE001 - typer brings a click of its own
        kinds = {kind.__name__ for kind in type(error).__mro__}
        lacks = any(words in str(error) for words in ("does not exist", "is no file", "is no folder"))
        absent = "BadParameter" in kinds and lacks
        part = "MissingParameter" in kinds and place.endswith(".md")  # prose may name a part of a command
        assert "Exit" in kinds or absent or part, f"{place}: {line}: {error}"
