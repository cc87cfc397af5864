"""`maskmill` and `python -m maskmill` as processes: what a shell sees, and what they leave unloaded."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

from maskmill.__main__ import main

SCRIPT = str(Path(sys.executable).parent / "maskmill")
MODULE = [sys.executable, "-m", "maskmill"]

HEAVY = ("torch", "numpy", "ray", "prefect", "pyarrow", "boto3", "PIL", "transformers", "duckdb", "pydantic")


def run(*words: str | Path, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*(command or MODULE), *map(str, words)], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("command", [[SCRIPT], MODULE], ids=["script", "module"])
def test_an_unknown_command_is_a_line_and_exit_code_2(command: list[str]) -> None:
    done = run("generrate", command=command)
    assert done.returncode == 2 and done.stdout == ""
    assert "No such command 'generrate'" in done.stderr and "generate" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_option_and_a_missing_argument_are_exit_code_2() -> None:
    for words, says in (
        (("status", "--no-such"), "--no-such"),
        (("generate",), "Missing argument 'DATASET'"),
    ):
        done = run(*words)
        assert done.returncode == 2 and done.stdout == ""
        assert says in done.stderr and "Traceback" not in done.stderr


def test_no_command_at_all_shows_the_help() -> None:
    done = run()
    assert done.returncode == 2, "as every command of this kind does: nothing was done"
    assert "Exit codes: 0 done" in done.stdout + done.stderr


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_exit_code_0(option: str) -> None:
    done = run(option)
    assert done.returncode == 0 and "maskmill" in done.stdout and done.stderr == ""


def test_an_error_of_ours_is_one_message_and_its_exit_code(tmp_path: Path) -> None:
    wrong = run("verify", tmp_path / "nothing")
    assert wrong.returncode == 2 and wrong.stdout == ""
    assert wrong.stderr.startswith("error ") and "there is no dataset here" in wrong.stderr
    assert len(wrong.stderr.strip().splitlines()) == 2, "the message, and how to see more"


@pytest.mark.parametrize(
    "words", [("models",), ("models", "--json"), ("config", "show", "nano")], ids=" ".join
)
def test_a_reader_that_leaves_is_told_nothing(words: tuple[str, ...]) -> None:
    """As `maskmill models | true`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = subprocess.run(
            [*MODULE, *words], stdout=pipe, stderr=subprocess.PIPE, timeout=120, check=False
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_letters_that_an_encoding_lacks_are_written_as_python_writes_them(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    (tmp_path / "\u2713").mkdir()
    done = subprocess.run(
        [*MODULE, "status", str(tmp_path / "\u2713")],
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0 and b"\\u2713" in done.stdout, done.stderr


def test_ctrl_c_while_it_imports_itself_is_a_word_and_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Slow(types.ModuleType):
        def __getattr__(self, name: str) -> object:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "maskmill.flows.cli", Slow("cli"))
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130 and capsys.readouterr().err == "\nstopped\n"


def test_debug_shows_where_an_error_came_from(tmp_path: Path) -> None:
    done = run("verify", tmp_path / "nothing", "--debug")
    assert done.returncode == 1 and "Traceback" in done.stderr and "NoSuchThing" in done.stderr


def test_the_command_line_loads_nothing_heavy() -> None:
    """What makes `maskmill --help` quick; each command loads what it needs when it runs."""
    code = (
        "import sys; import maskmill.flows.cli; "
        "print(*sorted(m for m in sys.modules if m.startswith(('maskmill.storage.', 'maskmill.workers.'))), "
        f"*(m for m in {HEAVY!r} if m in sys.modules))"
    )
    done = run("-c", code, command=[sys.executable])
    assert done.returncode == 0, done.stderr
    light = {
        "maskmill.storage.secret_words",
        "maskmill.workers.exports",
        "maskmill.workers.exports.chosen",
        "maskmill.workers.exports.chosen.splits",
        "maskmill.workers.exports.formats",
        "maskmill.workers.run",
        "maskmill.workers.run.recipe",
    }
    assert set(done.stdout.split()) <= light
