"""The commands as a user types them: results, JSON, messages, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from maskmill.flows.cli import app
from tests.workers.published import NUM_ANNOTATED, Published, publish_dataset


def run(*words: str | Path) -> Result:
    """One command; standard output and standard error apart."""
    return CliRunner().invoke(app, [str(word) for word in words])


def test_help_names_every_command_and_the_exit_codes() -> None:
    shown = run("--help")
    assert shown.exit_code == 0
    for command in (
        "generate",
        "status",
        "verify",
        "preview",
        "export",
        "tune",
        "demo",
        "scenes",
        "photos",
        "deploy",
        "config",
    ):
        assert f"  {command} " in shown.stdout
    assert "Exit codes: 0 done" in shown.stdout
    assert run("--version").stdout.startswith("maskmill ")


@pytest.mark.parametrize("words", [("generate", "--help"), ("config", "show", "--help"), ("tune", "--help")])
def test_commands_explain_themselves(words: tuple[str, ...]) -> None:
    shown = run(*words)
    assert shown.exit_code == 0
    assert "section.field=value" in shown.stdout


def test_status_says_what_is_there(published: Published) -> None:
    shown = run("status", published.spec.root)
    assert shown.exit_code == 0
    assert "10 in 3 shards" in shown.stdout
    assert "3 of 3 shards committed" in shown.stdout
    found = json.loads(run("status", published.spec.root, "--json").stdout)
    assert (found["images"], found["shards"], found["generations"]) == (10, 3, [1])
    assert [version["column"] for version in found["columns"]] == ["images", "masks"]
    assert found["generation"]["models"] == {"segmenter": "fake"}
    assert found["drivers"] == []


def test_status_of_nothing_says_how_to_begin(tmp_path: Path) -> None:
    shown = run("status", tmp_path / "new")
    assert shown.exit_code == 0
    assert "none yet" in shown.stdout
    assert f"maskmill generate {tmp_path}/new --input" in shown.stdout


def test_verify_gives_the_six_counts_and_passes_a_sound_dataset(published: Published) -> None:
    shown = run("verify", published.spec.root, "--deep", "--json")
    assert shown.exit_code == 0
    report = json.loads(shown.stdout)
    assert {name: report[name] for name in ("images", "annotated", "rejected")} == {
        "images": 10,
        "annotated": NUM_ANNOTATED,
        "rejected": 1,
    }
    assert (report["missing"], report["duplicated"], report["damaged"]) == (0, 0, 0)


def test_verify_fails_a_dataset_that_lost_a_tar(tmp_path: Path) -> None:
    lost = publish_dataset(tmp_path)
    next(Path(lost.spec.root).glob("masks/*/data/000001.*.tar")).unlink()
    shown = run("verify", lost.spec.root, "--json")
    assert shown.exit_code == 1
    assert json.loads(shown.stdout)["damaged"] > 0
    shown = run("verify", lost.spec.root)
    assert shown.exit_code == 1
    assert "Not sound" in shown.stdout


def test_preview_writes_a_page_and_a_sheet(published: Published, tmp_path: Path) -> None:
    shown = run("preview", published.spec.root, "--out", tmp_path / "look", "--json")
    assert shown.exit_code == 0
    assert json.loads(shown.stdout)["page"] == str(tmp_path / "look" / "index.html")
    assert (tmp_path / "look" / "index.html").read_text().startswith("<!")
    assert (tmp_path / "look" / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_export_writes_tars_once_and_then_says_so(published: Published, tmp_path: Path) -> None:
    shown = run("export", published.spec.root, tmp_path / "sa1b", "--json")
    assert shown.exit_code == 0, shown.stderr
    report = json.loads(shown.stdout)
    assert (report["format"], report["num_images"], report["already_complete"]) == (
        "sa1b",
        NUM_ANNOTATED,
        False,
    )
    assert list((tmp_path / "sa1b").glob("*.tar"))
    again = run("export", published.spec.root, tmp_path / "sa1b")
    assert again.exit_code == 0
    assert "already" in again.stdout
    coco = run("export", published.spec.root, tmp_path / "coco", "--format", "coco", "--json")
    assert json.loads(coco.stdout)["format"] == "coco"


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("generate", "{tmp}/data", "--input", "{tmp}/absent"), 2, "does not exist"),
        (("generate", "{tmp}/data", "--input", "{tmp}"), 2, "no images in it"),
        (
            ("generate", "{tmp}/data", "--input", "{tmp}", "--set", "mask.stability=1"),
            2,
            "did you mean 'masks'",
        ),
        (("generate", "{tmp}/data", "--input", "{tmp}", "--recipe", "big"), 2, "fast, nano, sa1b"),
        (("generate", "{tmp}/data", "--input", "{tmp}", "--recipe", "sa1b"), 2, "sam_vit_h_4b8939.pth"),
        (("generate", "{tmp}/data"), 2, "--input"),
        (("generate", "{tmp}/data", "--input", "{tmp}", "--limit", "0"), 2, "--limit"),
        (("verify", "{tmp}/data"), 2, "is the path right"),
        (("preview", "{tmp}/data", "--out", "{tmp}/look"), 2, "holds no generation"),
        (("export", "{tmp}/data", "{tmp}/out"), 2, "holds no generation"),
        (("export", "{tmp}/data", "{tmp}/out", "--format", "voc"), 2, "sa1b, coco"),
        (("config", "show", "sa1"), 2, "did you mean 'sa1b'"),
        (("config", "show", "--config", "{tmp}/absent.toml"), 2, "cannot be read"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_a_mistake_gets_one_clear_message_and_its_code(
    words: tuple[str, ...], code: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "note.md").write_text("no picture")
    shown = run(*(word.format(tmp=tmp_path) for word in words))
    assert shown.exit_code == code
    assert message in " ".join(shown.stderr.split())
    assert "Traceback" not in shown.stderr
    assert shown.stdout == ""
    assert not (tmp_path / "data").exists()


def test_debug_lets_the_error_through(tmp_path: Path) -> None:
    shown = run("generate", tmp_path / "data", "--input", tmp_path / "absent", "--debug")
    assert type(shown.exception).__name__ == "InputError"


def test_config_show_resolves_and_list_explains(tmp_path: Path) -> None:
    text = run("config", "show", "sa1b", "--set", "masks.points_per_side=8").stdout
    assert 'recipe = "sa1b"' in text
    assert "points_per_side = 8" in text
    (tmp_path / "my.toml").write_text(text)
    again = run("config", "show", "--config", tmp_path / "my.toml")
    assert again.stdout == text
    assert json.loads(run("config", "show", "fast", "--json").stdout)["masks"]["crop_layers"] == 0
    assert set(json.loads(run("config", "list", "--json").stdout)) == {"fast", "nano", "sa1b", "sam2"}
    assert "laptop" in run("config", "list").stdout


def test_photos_says_whose_they_are(tmp_path: Path) -> None:
    shown = run("photos", tmp_path / "photos")
    assert shown.exit_code == 0
    assert "astronaut.png" in shown.stdout
    assert "NASA, public domain" in shown.stdout
    assert (tmp_path / "photos" / "astronaut.png").exists()


HEAVY = ("torch", "torchvision", "ray", "prefect", "numpy", "PIL", "boto3", "skimage", "numba", "fastapi")


@pytest.mark.parametrize(
    "command",
    [["--help"], ["generate", "--help"], ["config", "list"], ["config", "show"], ["status", "{root}"]],
)
def test_quick_commands_import_nothing_heavy(command: list[str], published: Published) -> None:
    words = [word.format(root=published.spec.root) for word in command]
    code = (
        "import sys\n"
        "from maskmill.flows.cli import app\n"
        f"app({words!r}, standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr.strip().splitlines()[-1] == "[]"


def test_gc_shows_what_it_would_do_and_does_it_when_told(tmp_path: Path) -> None:
    dataset = publish_dataset(tmp_path).spec.root
    lost = Path(dataset, "masks", "1" * 16, "data", "000000.lost.tar")
    lost.write_bytes(b"1234")
    assert "named by nothing" in run("verify", dataset).stderr
    assert json.loads(run("verify", dataset, "--json").stdout)["orphans"] == 1
    assert "Nothing to remove" in run("gc", dataset).stdout, "a day is spared"
    old = time.time() - 2 * 86_400
    os.utime(lost, (old, old))
    shown = run("gc", dataset)
    assert (shown.exit_code, lost.exists()) == (0, True)
    assert f"maskmill gc {dataset} --yes" in shown.stderr
    found = json.loads(run("gc", dataset, "--json").stdout)
    assert (found["removed"], found["objects"], found["bytes"], found["by_kind"]) == (
        False,
        1,
        4,
        {"data": 1},
    )
    assert json.loads(run("gc", dataset, "--json", "--yes").stdout)["removed"]
    assert not lost.exists()
    assert run("verify", dataset, "--deep").exit_code == 0
    assert not list(Path(dataset, "drivers").iterdir())


def test_forget_shows_what_it_would_do_and_does_it_when_told(tmp_path: Path) -> None:
    dataset = publish_dataset(tmp_path).spec.root
    shown = run("forget", dataset, "1")
    assert shown.exit_code == 0
    assert "000000001" in shown.stdout and "0.jpg" in shown.stdout and "not touched" in shown.stderr
    assert f"maskmill forget {dataset} 000000001 --yes" in shown.stderr
    done = json.loads(run("forget", dataset, "1", "--yes", "--json").stdout)
    assert (done["done"], done["report"]["generation"]) == (True, 2)
    report = json.loads(run("verify", dataset, "--deep", "--json").stdout)
    assert (report["annotated"], report["rejected"], report["damaged"]) == (NUM_ANNOTATED - 1, 2, 0)
    assert "Nothing to do" in run("forget", dataset, "1", "--yes").stdout
    assert run("forget", dataset, "4711", "--yes").exit_code == 2


def test_verify_shows_damage_before_it_repairs(tmp_path: Path) -> None:
    lost = publish_dataset(tmp_path)
    tar = next(Path(lost.spec.root).glob("masks/*/data/000001.*.tar"))
    tar.unlink()
    shown = run("verify", lost.spec.root, "--repair")
    assert shown.exit_code == 1
    assert "shard 1: masks: data" in shown.stderr and "--yes" in shown.stderr
    shown = run("verify", lost.spec.root, "--repair", "--yes", "--json")
    assert shown.exit_code == 1
    assert "give the --recipe" in json.loads(shown.stdout)["repair"]["left"][0], "made-up fingerprints"


def test_what_was_tuned_is_what_is_annotated_next(tmp_path: Path) -> None:
    from maskmill.flows.commands.make.tune import generate_words

    words = generate_words(["in dir"], "fast", tmp_path / "my.toml", ["segmenter.model=vit_b"])
    assert words[3:] == [
        *("--input", "in dir", "--recipe", "fast"),
        *("--config", f"{tmp_path}/my.toml", "--set", "segmenter.model=vit_b"),
    ]
