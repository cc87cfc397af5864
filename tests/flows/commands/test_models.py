from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from maskmill.flows.cli import app
from maskmill.flows.commands.improve.models import describe
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.pipeline.settings.families import FAMILIES, ROLES, SEGMENTERS, family_of


def ask(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["models", *arguments])


def test_every_family_is_listed_with_what_it_needs() -> None:
    found = json.loads(ask("--json").stdout)["models"]
    assert [(one["role"], one["name"]) for one in found] == [(f.role, f.name) for f in FAMILIES]
    assert {one["role"] for one in found} == set(ROLES)
    assert all(one["installed"] and one["cure"] is None for one in found), "the test environment has them all"
    assert all(importlib.util.find_spec(module) for one in found for module in one["needs"])
    by_name = {one["name"]: one for one in found}
    assert (
        by_name["sam3"]["gated"]
        and by_name["sam2"]["encoder"] == "transformers"
        and by_name["vit_h"]["takes_file"]
    )


def test_what_lacks_is_told_with_its_cure() -> None:
    import dataclasses

    lacking = dataclasses.replace(family_of("segmenter", "edgetam"), needs=("timm", "no_such_package.inner"))
    told = describe(lacking)
    assert told["missing"] == ["no_such_package.inner"]
    assert told["cure"] == "pip install 'maskmill[timm]'"


def test_the_list_is_for_people_too() -> None:
    result = ask("segmenter")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in SEGMENTERS) and "Salesforce" not in result.stdout
    assert "gated: log in to the hub" in result.stdout


def test_an_unknown_role_or_family_is_told() -> None:
    result = ask("painter")
    assert result.exit_code == 2 and "use one of segmenter, captioner" in result.output
    with pytest.raises(ValueError, match="model='sam9' is unknown: use one of nano, vit_b"):
        SegmenterSettings(model="sam9")
    with pytest.raises(ValueError, match="namer model='x' is unknown: use one of clip, siglip"):
        family_of("namer", "x")
