"""Runs resolve from recipe, file and pairs; what cannot be is refused with its name, its value and a cure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from maskmill.flows.config import ConfigError, RunConfig, load_config, to_toml
from maskmill.pipeline.settings import FAST, NANO, SA1B
from maskmill.workers.run import recipe


def test_recipes_are_the_presets_of_the_mask_stage() -> None:
    assert load_config("nano").masks == NANO
    assert load_config("fast").masks == FAST
    assert load_config("sa1b").masks == SA1B


@pytest.mark.parametrize("name", recipe.recipe_names())
def test_every_recipe_resolves_says_what_it_is_for_and_reads_back(name: str, tmp_path: Path) -> None:
    resolved = load_config(name)
    assert resolved.recipe == name
    assert len(recipe.recipe_purpose(name)) > 20
    for word in ("For:", "Hardware:", "Cost:"):
        assert word in recipe.recipe_text(name)
    file = tmp_path / "run.toml"
    file.write_text(to_toml(resolved))
    assert load_config(file=file) == resolved


def test_later_wins_recipe_then_file_then_pairs(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text('recipe = "sa1b"\n[masks]\npoints_per_side = 24\nstability = 0.9\n[run]\nworkers = 3\n')
    resolved = load_config(file=file, sets=["masks.stability=0.8", "masks.max_coverage=none"])
    assert (resolved.masks.points_per_side, resolved.masks.stability, resolved.run.workers) == (24, 0.8, 3)
    assert resolved.masks.crop_layers == 2
    assert resolved.masks.max_coverage is None
    file.write_text(to_toml(resolved))
    assert load_config(file=file) == resolved


def test_a_path_needs_no_quotes_and_json_restores_a_run() -> None:
    resolved = load_config(sets=["segmenter.weights=/models/a b.pth", "segmenter.model=vit_b"])
    assert resolved.segmenter.weights == "/models/a b.pth"
    assert RunConfig.model_validate_json(resolved.model_dump_json()) == resolved


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("masks.points_per_sid=8", ("masks.points_per_sid", "did you mean 'points_per_side'")),
        ("mask.stability=0.9", ("[mask]", "did you mean 'masks'")),
        ("masks.points_per_side=0", ("points_per_side=0", "1 to 256")),
        ("masks.points_per_side=many", ("masks.points_per_side", "many", "integer")),
        ("segmenter.model=vit_g", ("vit_g", "nano, vit_b, vit_l, vit_h")),
        ("run.workers=0", ("workers=0", "1 to 10000")),
        ("run.deadline_s=nan", ("deadline_s=nan",)),
        ("export.format=voc", ("voc", "sa1b, coco")),
        ("export.images=false", ("images", "coco")),
        ("ingest.jpeg_quality=200", ("jpeg_quality=200", "1 to 100")),
        ("masks", ("--set 'masks'", "section.field=value")),
        ("=3", ("section.field=value",)),
    ],
)
def test_a_bad_pair_is_refused_by_name_value_and_cure(pair: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(sets=[pair])
    for word in words:
        assert word in str(caught.value)


def test_every_problem_is_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(sets=["masks.stability=7", "ingest.jpeg=3", "run.shard_size=0"])
    assert len(str(caught.value).splitlines()) == 3


def test_an_unknown_recipe_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"'sa1'.*did you mean 'sa1b'.*fast, nano, sa1b"):
        load_config("sa1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("recipe = 3", "must be a name in quotes"),
        ("masks = 3", r"write \[masks\]"),
        ("[masks", "is not TOML"),
        (f"[masks]\npoints_per_side = {'1' * 5001}", "is not TOML: it has a number of thousands of digits"),
        ("points_per_side = 3", r"no section \[points_per_side\]"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "my.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_config(file=file)


def test_a_file_in_another_encoding_says_which_is_wanted(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_bytes("[run]\nworkers = 1  # café".encode("latin-1"))
    with pytest.raises(ConfigError, match="the byte at place 24 is no UTF-8: save it as UTF-8"):
        load_config(file=tmp_path / "my.toml")


def test_a_missing_file_and_a_recipe_named_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(file=tmp_path / "absent.toml")
    file = tmp_path / "my.toml"
    file.write_text('recipe = "sa1b"')
    with pytest.raises(ConfigError, match="name it in one place"):
        load_config("fast", file=file)
    assert load_config("sa1b", file=file) == load_config("sa1b")


def test_reading_a_run_imports_nothing_heavy() -> None:
    heavy = "torch numpy PIL ray prefect pyarrow boto3 skimage"
    code = (
        "import sys; from maskmill.flows.config import load_config, to_toml; to_toml(load_config('sa1b')); "
        f"print([name for name in {heavy.split()!r} if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_word_columns_are_off_until_their_model_is_named(tmp_path: Path) -> None:
    resolved = load_config("sa1b")
    assert (resolved.captions.model, resolved.labels.model) == (None, None)
    sets = [
        "captions.model=owner/captioner",
        "captions.filter=none",
        "labels.model=owner/detector",
        "labels.text=both",
        'labels.vocabulary=["dog", "traffic light"]',
    ]
    on = load_config("sa1b", sets=sets)
    assert (on.captions.model, on.captions.filter) == ("owner/captioner", None)
    assert on.labels.vocabulary == ("dog", "traffic light")
    file = tmp_path / "run.toml"
    file.write_text(to_toml(on))
    assert load_config(file=file) == on
    assert (
        load_config("sa1b", sets=[*sets, "captions.model=none", "labels.model=none"]).captions.model is None
    )


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["labels.model=m"], r"captions are off: name captions.model, or use labels.text=.vocabulary."),
        (["labels.model=m", "labels.text=vocabulary"], r"needs a vocabulary"),
        (["captions.strategy=nucleu"], r"strategy='nucleu' is unknown: use one of nucleus, beam"),
        (["captions.model=''"], r"model='' is no model"),
        (["captions.strategy=beam", "captions.num_candidates=5"], r"num_beams=3 gives fewer than"),
        (["captions.treshold=0.4"], r"did you mean 'threshold'\?"),
        (["labels.link_iou=1.5"], r"link_iou=1.5 is out of range"),
    ],
)
def test_word_settings_that_cannot_be_are_refused(sets: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_config("sa1b", sets=sets)
