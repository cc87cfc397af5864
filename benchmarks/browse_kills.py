"""kill -9 of the page's server, many times, while two people review by two servers: what is lost?

    python -m benchmarks.browse_kills                200 kills, seed 0
    python -m benchmarks.browse_kills --kills 20 --seed 7

Two server processes show one dataset. Ana works by one, Ben by the other, each a mask and a save at a time,
as the page does: the save is sent again with the same name until it is answered. Before each step a moment
and one of the servers are drawn; it is killed there, and a new one takes its place.

The moments by the clock are killed from outside while a request runs. Those inside the writing of a save
are steps of the store's: the server kills itself there (SIGKILL, nothing is tidied up).

After each kill the store is read anew: what was answered must be there, unchanged, in force or taken over or
beside, and of what was not answered at most the mask in hand is missing. At the end `verify` reads it all.

It does not know: a machine that loses power (fsync's own promise), or a bucket.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from maskmill.pipeline.rle import encode_mask
from maskmill.pipeline.settings import SegmenterSettings
from maskmill.storage.care.verify import verify
from maskmill.storage.dataset.generations import latest
from maskmill.storage.dataset.saves import FOLDER, Save, saves_of, standing
from maskmill.storage.stores.base import ObjectStore
from maskmill.storage.stores.open import open_store
from maskmill.workers.page.serve import Server
from maskmill.workers.page.session import Session
from maskmill.workers.reviews.column import publish_saves
from tests.workers.page.in_browser import publish_scenes

BY_THE_CLOCK = ("between two steps", "while a picture is opened", "while a save is under way")
HALF, WRITTEN, SYNCED, LINKED, KEPT = (
    "half of the save's bytes written",
    "all bytes written, not synced",
    "synced, not under its number yet",
    "under its number, folder not synced",
    "kept, not answered",
)
INSIDE = (HALF, WRITTEN, SYNCED, LINKED, KEPT)
ANSWER_S = 120.0


def main() -> None:
    """Makes a dataset, kills, prints one JSON document; ends with 1 where anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0, help="end sooner, with fewer kills")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store, _, scenes = publish_scenes(Path(folder))
        began_s = time.perf_counter()
        drill = Drill(store, sorted(scenes), random.Random(asked.seed))
        try:
            while (
                sum(drill.kills.values()) < asked.kills and time.perf_counter() - began_s < 60 * asked.minutes
            ):
                drill.step()
        finally:
            drill.end()
        generation = publish_saves(store, created_utc="2026-11-27T00:00:00+00:00")
        assert generation is not None
        found = {
            "kills": sum(drill.kills.values()),
            "seed": asked.seed,
            "seconds": round(time.perf_counter() - began_s, 1),
            "by_moment": {
                moment: {"kills": count, "masks_in_hand_lost": drill.lost[moment]}
                for moment, count in sorted(drill.kills.items(), key=lambda item: -item[1])
            },
            "saves_answered": drill.answered,
            "saves_in_store": sum(len(saves_of(store, key)) for key in scenes),
            "saves_beside": sum(len(standing(saves_of(store, key)).beside) for key in scenes),
            "wrong": drill.wrong,
            "verify": "sound" if verify(store, deep=True).ok else "NOT SOUND",
        }
    print(json.dumps(found, indent=1))
    raise SystemExit(1 if drill.wrong or found["verify"] != "sound" else 0)


@dataclass
class Person:
    """Somebody at a page: what was opened, and how far the work is.

    Attributes:
        sent: of this sitting, save names -> masks in it that are this person's.
        answered: numbers of saves that the server said are kept, and their masks.
    """

    name: str
    key: str = ""
    opened: dict[str, Any] = field(default_factory=dict)
    sitting: str = ""
    number: int = 0
    last: int | None = None
    masks: list[dict[str, Any]] = field(default_factory=list)
    answered: dict[tuple[str, int], int] = field(default_factory=dict)


class Drill:
    """Two servers, two people, and what went wrong.

    Args:
        store: the dataset.
        keys: of its pictures.
        draw: of moments and steps.
    """

    def __init__(self, store: ObjectStore, keys: list[str], draw: random.Random) -> None:
        self._store, self._keys, self._draw = store, keys, draw
        self._people = [Person("ana"), Person("ben")]
        self._servers = [Child(store.root), Child(store.root)]
        self._save_s = 0.05
        self.kills, self.lost = Counter[str](), Counter[str]()
        self.answered = 0
        self.wrong: list[str] = []

    def step(self) -> None:
        """Both people get on; one server is killed at a drawn moment, and a new one begun."""
        moment = self._draw.choice(BY_THE_CLOCK + INSIDE)
        place = self._draw.randrange(2)
        person, other = self._people[place], self._people[1 - place]
        self._open_where_needed(other, 1 - place)
        self._save(other, 1 - place)

        if moment in INSIDE:
            self._servers[place].end()
            self._servers[place] = Child(self._store.root, die_at=moment)
        if moment == "while a picture is opened":
            person.key = ""
            self._killed_meanwhile(place, lambda: self._open_where_needed(person, place))
        else:
            self._open_where_needed(person, place)
            if moment == "between two steps":
                self._save(person, place)
                self._servers[place].kill()
            else:
                self._killed_while_saving(person, place, moment)
        self.kills[moment] += 1
        self._check(moment)
        self._servers[place].end()
        self._servers[place] = Child(self._store.root)
        if person.key:
            self._send(person, place)  # the page sends again what was not answered, if anything was not
            if self._draw.random() < 0.2:
                person.key = ""
        self._check("after it was sent again")

    def end(self) -> None:
        """Ends both servers."""
        for server in self._servers:
            server.end()

    def _open_where_needed(self, person: Person, place: int) -> None:
        if person.key:
            return
        key = self._draw.choice(self._keys)
        opened = self._servers[place].post("api/review/open", {"key": key, "who": person.name})
        person.key, person.opened, person.masks = key, opened, []
        person.sitting, person.number, person.last = f"{self._draw.getrandbits(60):x}", 0, None

    def _save(self, person: Person, place: int) -> None:
        """One more mask, saved."""
        self._draw_mask(person)
        began_s = time.perf_counter()
        self._send(person, place)
        self._save_s = 0.8 * self._save_s + 0.2 * (time.perf_counter() - began_s)

    def _draw_mask(self, person: Person) -> None:
        height, width = person.opened["image"]["height"], person.opened["image"]["width"]
        x, y = self._draw.randrange(width - 9), self._draw.randrange(height - 9)
        mask_HW = np.zeros((height, width), np.bool_)
        mask_HW[y : y + 8, x : x + 8] = True
        person.masks.append({"how": "added", "segmentation": encode_mask(mask_HW).to_coco(), "clicks": 1})
        person.number += 1

    def _send(self, person: Person, place: int) -> None:
        """Sends the person's newest save and takes the answer in. Raises OSError where none comes."""
        if not person.number:
            return
        kept = [{"how": "kept", "sources": [row["id"]]} for row in person.opened["rows"]]
        body = {
            "key": person.key,
            "who": person.name,
            "opening": person.opened["opening"],
            "sitting": {"name": person.sitting, "number": person.number, "last": person.last},
            "masks": [*kept, *person.masks],
        }
        answer = self._servers[place].post("api/review/save", body)
        person.last = int(answer["number"])
        person.answered[person.key, person.last] = len(person.masks)
        self.answered += 1

    def _killed_while_saving(self, person: Person, place: int, moment: str) -> None:
        self._draw_mask(person)
        if moment in INSIDE:
            with suppress(OSError, http.client.HTTPException):
                self._send(person, place)
                self.wrong.append(f"{moment}: the server lived on")
            return
        self._killed_meanwhile(place, lambda: self._send(person, place))

    def _killed_meanwhile(self, place: int, ask: Callable[[], None]) -> None:
        """Kills a server at a drawn time after a request was begun; an answer may still have come."""
        timer = threading.Timer(self._draw.uniform(0, 1.5 * self._save_s), self._servers[place].kill)
        timer.start()
        with suppress(OSError, http.client.HTTPException):
            ask()
        timer.join()

    def _check(self, moment: str) -> None:
        """What was answered is there and stands; of what was not, at most the mask in hand is missing."""
        by_key: dict[str, tuple[Save, ...]] = defaultdict(tuple)
        for key in self._keys:
            by_key[key] = saves_of(self._store, key)
            names = Counter(save.save_id for save in by_key[key])
            self.wrong += [
                f"{moment}: save {name} is there {count} times" for name, count in names.items() if count > 1
            ]
        for person in self._people:
            for (key, number), masks in person.answered.items():
                save = next((one for one in by_key[key] if one.number == number), None)
                own = 0 if save is None else sum(row["how"] == "added" for row in save.annotations)
                if save is None or own != masks or save.who != person.name:
                    self.wrong.append(
                        f"{moment}: {person.name}'s save {number} of {key} is not as it was answered"
                    )
            newest = [one for one in by_key[person.key] if one.save_id.startswith(f"{person.sitting}-")]
            kept = max((sum(row["how"] == "added" for row in one.annotations) for one in newest), default=0)
            missing = len(person.masks) - kept if person.key else 0
            self.lost[moment] += missing
            if missing > 1:
                self.wrong.append(f"{moment}: {missing} masks of {person.name} are missing")
        for key, saves in by_key.items():
            self._check_standing(key, saves)

    def _check_standing(self, key: str, saves: tuple[Save, ...]) -> None:
        """Every save is in force, beside, or one that another took the place of."""
        found = standing(saves)
        shown = [one for one in (found.in_force, *found.beside) if one is not None]
        covered = {number for one in shown for number in (one.number, *one.earlier)}
        self.wrong += [
            f"save {one.number} of {key} is shown nowhere" for one in saves if one.number not in covered
        ]


class Child:
    """A server in a process of its own.

    Args:
        root: of the dataset.
        die_at: one of `INSIDE`, where it kills itself; "" for nowhere.
    """

    def __init__(self, root: str, *, die_at: str = "") -> None:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(root, die_at, theirs), daemon=True)
        self._process.start()
        if not ours.poll(ANSWER_S):
            raise TimeoutError("a server does not start")
        address = urlsplit(ours.recv())
        self._host, self._path = address.netloc, address.path

    def post(self, path: str, body: Any) -> Any:
        """What the server answers. Raises OSError, http.client.HTTPException where it doesn't."""
        connection = http.client.HTTPConnection(self._host, timeout=ANSWER_S)
        try:
            headers = {"content-type": "application/json"}
            connection.request("POST", self._path + path, json.dumps(body), headers)
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {data.decode()[:500]}")
        return json.loads(data)

    def kill(self) -> None:
        """kill -9."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.join()

    def end(self) -> None:
        """The same for one that may be gone."""
        self._process.kill()
        self._process.join()


def _serve(root: str, die_at: str, told: Connection) -> None:
    """A server's process: the page's own, but that it loads no segmenter ahead."""
    store = open_store(root)
    generation = latest(store)
    assert generation is not None
    session = Session(store, generation, person="nobody", segmenter=SegmenterSettings(model="nano"))
    session.answers.warm = session.answers.prepare = lambda *_: None  # type: ignore[method-assign, assignment]
    if die_at:
        _die(die_at, session)
    Server(session).run(told.send)


def _die(moment: str, session: Session) -> None:
    """Has this process kill itself at a step of writing a save."""
    fsync, link, save = os.fsync, os.link, session.reviewing.save

    def now() -> None:
        """kill -9."""
        os.kill(os.getpid(), signal.SIGKILL)

    def syncing(handle: int) -> None:
        """The temporary beside a save's name has all of its bytes."""
        name = Path(f"/proc/self/fd/{handle}").readlink()
        is_saves = f"/{FOLDER}/" in str(name) and name.is_file()
        if is_saves and moment == HALF:
            os.ftruncate(handle, os.fstat(handle).st_size // 2)
        if is_saves and moment in (HALF, WRITTEN):
            now()
        fsync(handle)

    def linking(source: Any, target: Any, **how: Any) -> None:
        """The save gets its number."""
        is_save = f"/{FOLDER}/" in os.fspath(target)
        if is_save and moment == SYNCED:
            now()
        link(source, target, **how)
        if is_save and moment == LINKED:
            now()

    def saving(*values: Any, **named: Any) -> Any:
        """The whole of it."""
        save(*values, **named)
        now()

    os.fsync, os.link = syncing, linking  # type: ignore[assignment]
    if moment == KEPT:
        session.reviewing.save = saving  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
