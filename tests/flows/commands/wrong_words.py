"""Wrong words for every parameter of every command, and right ones to stand beside them.

The commands and their parameters come from the program itself; here is only what each is given. A word in
braces is a place that `Places` makes. A kind has one exit code, whichever command meets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from maskmill.flows.cli import app

WRONG_USE = 2


@dataclass(frozen=True)
class Wrong:
    """One wrong value: what kind of mistake it is, and the words."""

    kind: str
    words: tuple[str, ...]


def wrong(kind: str, *values: str | tuple[str, ...]) -> list[Wrong]:
    return [Wrong(kind, (value,) if isinstance(value, str) else value) for value in values]


ADDRESS = [
    *wrong("no bucket", "s3://", "s3:///prefix"),
    *wrong("unknown scheme", "ftp://host/folder", "gs://bucket/folder"),
    *wrong("empty", ""),
    *wrong("no name of a file", "{tmp}/a\0b", "{tmp}/" + "n" * 300),
    *wrong("file for folder", "{file}", "{file}/below"),
]
NO_DATASET = wrong("no dataset", "{tmp}/absent", "{tmp}/empty", "{pictures}")
DAMAGED = wrong("damaged dataset", "{damaged}")
PLACE = [one for one in ADDRESS if one.kind != "empty"]
INPUT = [
    *ADDRESS[:5],
    *wrong("missing path", "{tmp}/absent", "{tmp}/absent/*.jpg", "{tmp}/absent.txt", "{tmp}/absent.tar"),
    *wrong("nothing in it", "{tmp}/empty", "{text_folder}"),
    *wrong("no such file format", "{file}"),
    *wrong("damaged file", "{no_tar}"),
]
COUNT = wrong("number out of range", "0", "-1") + wrong("no number", "abc", "", "1.5", "nan")
BIG = wrong("number out of range", "1" + "0" * 400)
NATURAL = wrong("number out of range", "-1") + wrong("no number", "abc", "", "1.5")
SECONDS = wrong("number out of range", "-1", "nan", "-inf") + wrong("no number", "abc", "")
PORT = wrong("number out of range", "-1", "65536", "1" + "0" * 400) + wrong("no number", "abc", "")
RECIPE = wrong("unknown recipe", "sa1", "", "../nano")
CONFIG = [
    *wrong("missing path", "{tmp}/absent.toml"),
    *wrong("folder for file", "{tmp}/empty"),
    *wrong("unreadable settings", "{binary}", "{no_toml}", "{deep_toml}"),
    *wrong("unknown setting", "{odd_toml}"),
]
SET = [
    *wrong("no setting", "masks", "=1", "masks=1", ".x=1", ""),
    *wrong("unknown setting", "mask.points_per_side=1", "masks.points=1"),
    *wrong("number out of range", "masks.points_per_side=-1", "run.shard_size=0", "run.deadline_s=nan"),
    *wrong("no number", "masks.points_per_side=abc", 'run.workers="two"', "masks.points_per_side=[1]"),
]
GENERATION = wrong("no such generation", "0", "99", "nosuch", "-1", "1.5", "", "9" * 400)
OLD_GENERATION = wrong("no such generation", "0", "99", "nosuch", "", "9" * 400)
GENERATION_NUMBER = wrong("no such generation", "99") + COUNT
FILE_OUT = [
    *wrong("folder for file", "{tmp}/empty"),
    *wrong("missing path", "{tmp}/absent/one.png"),
    *wrong("no name of a file", "{tmp}/a\0b", "{tmp}/" + "n" * 300),
]
FOLDER_OUT = wrong("file for folder", "{file}", "{file}/below") + wrong("no name of a file", "{tmp}/a\0b")
TRUTH = [
    *wrong("missing path", "{tmp}/absent.json"),
    *wrong("folder for file", "{tmp}/empty"),
    *wrong("damaged file", "{file}", "{binary}"),
    *wrong("no annotations", "{list_json}", "{empty_coco}", "{bare_coco}"),
]
PICTURES = wrong("missing path", "{tmp}/absent") + wrong("file for folder", "{file}")
PICTURES += wrong("nothing in it", "{tmp}/empty")


def pairs(first: list[Wrong], second: list[Wrong]) -> list[Wrong]:
    """Wrong in one of two words."""
    left = [Wrong(one.kind, (*one.words, "{pictures}")) for one in first]
    return left + [Wrong(one.kind, ("{coco}", *one.words)) for one in second]


PAIR = pairs(TRUTH, PICTURES)
UNTRAINABLE = wrong("a family that can't be trained", "segmenter.model=sam2", "segmenter.model=edgetam")
WEIGHTS = wrong("missing path", "segmenter.weights=/nowhere/nano.pth") + wrong(
    "unknown family", "segmenter.model=nosuch"
)
NAMES = ("names.model=openai/clip-vit-base-patch32", "--set", "names.vocabulary=/nowhere/words.txt")
VOCABULARY = wrong("missing path", NAMES)

WRONG: Mapping[str, list[Wrong]] = {
    "dataset": ADDRESS + NO_DATASET + DAMAGED,
    "input": INPUT,
    "recipe": RECIPE,
    "config": CONFIG,
    "set": SET,
    "limit": COUNT,
    "workers": COUNT + BIG,
    "ray_address": wrong("no address", "nonsense", "http://host:1", "", "host:abc", "127.0.0.1:0"),
    "max_shards": COUNT,
    "max_gpu_hours": SECONDS,
    "order": wrong("unknown choice", "nosuch", ""),
    "wait": SECONDS,
    "every": SECONDS + wrong("number out of range", "0"),
    "generation": GENERATION,
    "before": OLD_GENERATION,
    "after": OLD_GENERATION,
    "dest": ADDRESS,
    "format": wrong("unknown choice", "nosuch", "", "COCO"),
    "column": wrong("no such column", "nosuch", "", "nan", "../x", "images"),
    "picture": FILE_OUT,
    "out": FOLDER_OUT,
    "key": wrong("no such image", "nosuch", "", "4711", "9" * 400),
    "keys": wrong("no such image", "nosuch", "", "4711", "9" * 400),
    "sql": wrong(
        "bad SQL",
        *("", "  ", "--", "selec 1", "select * from nosuch", "select nosuch from masks"),
        *("drop table masks", "select 1/", "select cast('today' as date)", "copy masks to '{tmp}/x'"),
        *("select 'a", "\0", "select date '2025-13-45'", "select * from '{file}'", "attach '{tmp}/x'"),
    ),
    "max_rows": COUNT,
    "timeout": SECONDS + wrong("number out of range", "0"),
    "name": wrong("no name", "", "a/b", "..", "1", "latest", "ü", "\0", "n" * 300),
    "segmenter": [
        *wrong("unknown family", "nosuch", "", "=", "student:nosuch"),
        *wrong("missing path", "nano=/nowhere/nano.pth", "vit_b=/nowhere/b.pth"),
        *wrong("damaged file", "vit_b={file}", "nano={binary}"),
        *wrong("folder for file", "vit_b={empty}"),
    ],
    "coco": TRUTH,
    "images": PICTURES,
    "num_images": COUNT,
    "size_px": COUNT,
    "export": ADDRESS,
    "boxes": TRUTH[:4],
    "suite": CONFIG[:3] + wrong("unreadable settings", "{binary}", "{no_toml}"),
    "scenes": NATURAL,
    "bsds": [
        *wrong("missing path", ("{tmp}/absent", "{tmp}/empty"), ("{pictures}", "{tmp}/absent")),
        *wrong("file for folder", ("{file}", "{tmp}/empty"), ("{pictures}", "{file}")),
        *wrong("nothing in it", ("{tmp}/empty", "{tmp}/empty"), ("{pictures}", "{tmp}/empty")),
        *wrong("damaged file", ("{pictures}", "{mats}")),
    ],
    "agree": wrong("no such generation", ("1", "99"), ("0", "1"), ("-1", "1"))
    + wrong("no number", ("a", "1")),
    "truth": PAIR,
    "gate": PAIR,
    "mode": wrong("unknown choice", "nosuch", ""),
    "start": wrong("unknown choice", "nosuch", ""),
    "rounds": COUNT,
    "teacher": [],
    "student": wrong("unknown family", "nosuch", "", "vit_h"),
    "to": wrong("no such model", "99", "9" * 30) + NATURAL,
    "seed": NATURAL,
    "count": COUNT,
    "folder": wrong("file for folder", "{file}", "{file}/below"),
    "host": wrong("no address", "", "no host", "999.1.1.1"),
    "port": PORT + wrong("number out of range", "0"),
    "ray_port": PORT,
    "num_cpus": COUNT,
    "database": wrong("no address", "", "nonsense", "mysql://a/b"),
    "pool": wrong("no name", "", "a/b%"),
    "home": wrong("file for folder", "{file}"),
    "flow": wrong("unknown choice", "nosuch", ""),
    "pool_type": wrong("unknown choice", "nosuch", ""),
    "cron": wrong("bad schedule", "", "daily", "61 * * * *", "* * * *", "a b c d e", "0 3 31 2 x"),
    "timezone": wrong("no such time zone", "Nowhere/X", "", "../x", "{tmp}"),
    "faults": COUNT,
    "kinds": wrong("unknown choice", "nosuch", "", "crash"),
    "csv": [],
    "parquet": FILE_OUT,
    "where": wrong("bad SQL", "selec 1", "nosuch = 1", "1 =", "\0"),
    "masks_where": wrong("bad SQL", "selec 1", "nosuch = 1", "1 =", "\0"),
    "split": wrong("no setting", "a/b", "90", "200/5/5", "-1/101"),
    "classes": [],
    "class_map": TRUTH[:4],
    "min_label_score": wrong("number out of range", "nan", "-1", "2") + wrong("no number", "abc", ""),
    "names": wrong(
        "unknown weights",
        *(
            "nosuch",
            "",
            " ",
            "ftp://host/b.pth",
            "file:///etc/passwd",
            "http://",
            "http://[bad/b.pth",
            "a\0b",
        ),
    ),
    "weights": wrong("missing path", "/nowhere/b.pth"),
    "prefer": wrong("unknown choice", "nosuch", ""),
    "ids_of": wrong("unknown column", "nosuch", "masks"),
    "only": wrong("unknown set", "nosuch", "a\0b", "../a"),
    "max_distance": NATURAL + wrong("number out of range", "129"),
    "by": wrong("unknown choice", "nosuch", ""),
    "who": wrong("no name", "", " "),
    "minutes": SECONDS,
    "store": ADDRESS,
    "scratch": wrong("file for folder", "{file}"),
    "role": wrong("unknown choice", "nosuch", ""),
    "files": [
        *wrong("missing path", "{tmp}/absent.json"),
        *wrong("damaged file", "{file}", "{binary}", "{tmp}/empty"),
        *wrong("no annotations", "{list_json}", "{empty_coco}", "{bare_coco}"),
    ],
}
"""By a parameter's name in the program."""

ONLY: Mapping[tuple[str, str], list[Wrong]] = {
    ("generate", "dataset"): ADDRESS + DAMAGED,
    ("ingest", "dataset"): ADDRESS + DAMAGED,
    ("loop", "dataset"): ADDRESS + DAMAGED,
    ("promote", "dataset"): ADDRESS + NO_DATASET,
    ("generate", "input"): INPUT[:-1],
    ("status", "dataset"): ADDRESS + DAMAGED,
    ("deploy", "dataset"): ADDRESS,
    ("drill", "images"): COUNT,
    ("review", "images"): COUNT,
    ("tune", "input"): INPUT,
    ("import", "images"): INPUT[:-1],
    ("browse", "column"): wrong("no such column", "nosuch", "nan", "../x"),
    ("browse", "by"): [],
    ("browse", "port"): PORT,
    ("doctor", "dataset"): [],  # what is wrong with these two is a finding; see test_wrong_arguments.py
    ("doctor", "ray_address"): [],
    ("doctor", "set"): SET,
    ("prove", "images"): INPUT,
    ("prove", "out"): FILE_OUT,
    ("prove", "set"): SET + WEIGHTS,
    ("import", "column"): wrong("no name", "", "../x", "masks", "images", "A B", "nan", "n" * 300),
    ("export", "images"): [],
    ("tag", "generation"): OLD_GENERATION,
    ("retrain", "generation"): GENERATION_NUMBER,
    ("distill", "generation"): GENERATION_NUMBER,
    ("evaluate", "generation"): GENERATION_NUMBER,
    ("generate", "set"): SET + WEIGHTS + VOCABULARY,
    ("relabel", "set"): SET + WEIGHTS + VOCABULARY,
    ("retrain", "set"): SET + UNTRAINABLE + WEIGHTS,
    ("loop", "set"): SET + UNTRAINABLE + WEIGHTS,
    ("deploy", "name"): wrong("no name", "a/b", "ü", "\0"),
    ("deploy", "input"): [],
    ("config show", "recipe"): RECIPE,
    ("distill", "teacher"): [
        *wrong("unknown family", "nosuch", "", "="),
        *wrong("missing path", "vit_b=/nowhere/b.pth"),
        *wrong("a family that can't be trained", "sam2=/nowhere", "edgetam"),
    ],
    ("probe", "dest"): ADDRESS,
    ("scenes", "dest"): PLACE,
    ("photos", "dest"): PLACE,
    ("preview", "out"): PLACE,
}
"""Where a command's parameter is another thing than its namesakes, or meets more."""

FREE = (
    {"private", "staging", "open", "review", "speeds", "csv"}
    | {"json", "debug", "yes", "watch", "deep", "repair", "polygons", "remove", "note", "audit", "text"}
    | {
        *("why", "promote", "check", "stop", "image", "tag", "sign_off", "versions", "dry_run", "unsafe"),
    }
)
"""Switches, and words that are for people alone."""

RIGHT: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "generate": {"dataset": ("{tmp}/new",), "input": ("{pictures}",)},
    "ingest": {"dataset": ("{tmp}/new",), "input": ("{pictures}",)},
    "relabel": {"dataset": ("{dataset}",), "dry_run": ()},
    "export": {"dataset": ("{dataset}",), "dest": ("{tmp}/export",)},
    "diff": {"dataset": ("{dataset}",), "before": ("1",)},
    "show": {"dataset": ("{dataset}",), "key": ("{key}",)},
    "query": {"dataset": ("{dataset}",), "sql": ("select 1",)},
    "tag": {"dataset": ("{dataset}",), "name": ("best",)},
    "evaluate": {"dataset": ("{dataset}",), "coco": ("{coco}",), "images": ("{pictures}",)},
    "review": {"dataset": ("{dataset}",), "truth": ("{coco}", "{pictures}"), "images": ("1",)},
    "retrain": {"dataset": ("{dataset}",)},
    "distill": {"teacher": ("nano",), "student": ("nano",), "dataset": ("{dataset}",)},
    "verifier": {"dataset": ("{dataset}",), "out": ("{tmp}/v.safetensors",)},
    "push": {"dataset": ("{dataset}",), "dest": ("hf://nobody/nothing",)},
    "loop": {
        "dataset": ("{tmp}/new",),
        "input": ("{pictures}",),
        "gate": ("{coco}", "{pictures}"),
    },
    "tune": {"input": ("{pictures}",)},
    "scenes": {"dest": ("{tmp}/scenes",)},
    "photos": {"dest": ("{tmp}/photos",)},
    "deploy": {"dataset": ("{tmp}/new",), "input": ("{pictures}",)},
    "forget": {"dataset": ("{dataset}",), "keys": ("{key}",)},
    "probe": {"dest": ("{tmp}/probe",)},
    "import": {"dataset": ("{dataset}",), "files": ("{coco}",)},
    "up": {"check": ()},
    "drill": {},
    "demo": {},
    "models": {},
    "fetch": {},
    "doctor": {},
    "prove": {"images": ("{pictures}",)},
    "config show": {},
    "config list": {},
}
"""What stands beside the wrong word; of commands not named, the dataset."""

SHARED = ("recipe", "config", "set")

ELSEWHERE = {
    "prefect": "hands everything to Prefect's own command line",
}


def commands() -> dict[str, Any]:
    """Every command of the program, by what is typed."""
    found: dict[str, Any] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {name: command})
        found |= {name if each is command else f"{name} {word}": each for word, each in inner.items()}
    return found


def mistakes(name: str, command: Any) -> Iterator[tuple[str, Wrong]]:
    """Each parameter of a command with each wrong value of its own."""
    for parameter in command.params:
        if parameter.name in FREE and (name, parameter.name) not in ONLY:
            continue
        own = ONLY.get((name, parameter.name))
        found = WRONG[parameter.name] if own is None else own
        if parameter.name in SHARED and name != "generate":  # one reader for all: a word of each kind will do
            found = list({one.kind: one for one in found}.values())
        for one in found:
            yield parameter.name, one


def typed(name: str, command: Any, parameter: str, one: Wrong) -> list[str]:
    """The whole command with one wrong word in it, places in braces."""
    given: dict[str, tuple[str, ...]] = {**RIGHT.get(name, {"dataset": ("{dataset}",)}), parameter: one.words}
    words, positional = name.split(), []
    for each in command.params:
        if each.name not in given:
            continue
        if each.opts[0].startswith("-"):
            words += [each.opts[0], *given[each.name]]
        else:
            positional += given[each.name]
    return [*words, "--", *positional] if positional else words
