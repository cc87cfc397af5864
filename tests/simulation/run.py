"""Many schedules, one after the other, in a folder that remembers which are done: stop it, start it again.

    make simulate SEEDS=10000
    python -m tests.simulation.run --seeds 10000 --out build/simulation

`done.json` is rewritten every hundred schedules, `wrong/<seed>.txt` tells the steps of each that broke a
promise. The table says how much of the world was seen: switches, actors, and each call of a store by what
became of it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation.machine.store import opened_by_address
from tests.simulation.play import Outcome, play

EVERY = 100
ENOUGH, OFTEN = 10_000, 50  # after so many schedules, every call has met every fate so often
FATES = ("before", "after", "lost answer", "kill", "kill after", "sleep", "disk full")
HASH_SEED = "0"  # the order of sets decides calls too: a seed means the same in every process


@dataclass
class Tally:
    """What was seen so far.

    Attributes:
        done: schedules. cpu_s: that they took.
        wrong: seeds that broke a promise, with the first sentence of what.
    """

    done: int = 0
    cpu_s: float = 0.0
    switches: int = 0
    calls: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: Outcome, cpu_s: float) -> None:
        """One more."""
        self.done += 1
        self.cpu_s += cpu_s
        self.switches += outcome.switches
        self.calls += outcome.calls
        self.kinds += outcome.kinds
        self.hits.update({f"{op}|{fate}": number for (op, fate), number in outcome.hits.items()})
        if outcome.wrong:
            self.wrong[str(outcome.seed)] = outcome.wrong[0]

    def table(self) -> str:
        """For people."""
        ops = sorted({name.partition("|")[0] for name in self.hits})
        lines = [
            f"{self.done} schedules, {self.cpu_s / max(1, self.done):.3f} s of CPU each, "
            f"{self.switches / max(1, self.done):.0f} switches and "
            f"{self.calls / max(1, self.done):.0f} calls on average, {len(self.wrong)} wrong",
            "actors: " + ", ".join(f"{kind} {number}" for kind, number in sorted(self.kinds.items())),
            "".join([f"{'call':16}", *(f"{fate:>12}" for fate in FATES)]),
            *("".join([f"{op:16}", *(f"{self.hits[f'{op}|{fate}']:>12}" for fate in FATES)]) for op in ops),
            *(f"seed {seed}: {what}" for seed, what in self.wrong.items()),
        ]
        if self.done >= ENOUGH and (thin := self.thin()):
            lines.append(f"met fewer than {OFTEN} times: {', '.join(thin)}")
        return "\n".join(lines)

    def thin(self) -> list[str]:
        """Calls and what became of them that were seen too rarely to say anything."""
        ops = sorted({name.partition("|")[0] for name in self.hits})
        return [f"{op} {fate}" for op in ops for fate in FATES[:4] if self.hits[f"{op}|{fate}"] < OFTEN]


def simulate(first: int, num_seeds: int, out: Path | None) -> Tally:
    """Plays the seeds that `out` doesn't know of yet; None remembers nothing."""
    tally = _known(out)
    with opened_by_address():
        for seed in range(first + tally.done, first + num_seeds):
            began = time.process_time()
            outcome = play(seed)
            tally.add(outcome, time.process_time() - began)
            if out is not None and outcome.wrong:
                (out / "wrong").mkdir(parents=True, exist_ok=True)
                (out / "wrong" / f"{seed}.txt").write_text(outcome.story())
            if out is not None and (tally.done % EVERY == 0 or seed == first + num_seeds - 1):
                _keep(out, tally)
    return tally


def _known(out: Path | None) -> Tally:
    if out is None or not (out / "done.json").exists():
        return Tally()
    found = json.loads((out / "done.json").read_text())
    return Tally(**{**found, "kinds": Counter(found["kinds"]), "hits": Counter(found["hits"])})


def _keep(out: Path, tally: Tally) -> None:
    out.mkdir(parents=True, exist_ok=True)
    fresh = out / "done.json.new"
    fresh.write_text(json.dumps(vars(tally), indent=1))
    fresh.replace(out / "done.json")


def main() -> int:
    """The command."""
    asked = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    asked.add_argument("--seeds", type=int, default=10_000)
    asked.add_argument("--first", type=int, default=0)
    asked.add_argument("--out", type=Path, default=Path("build/simulation"))
    chosen = asked.parse_args()
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.execve(
            sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONHASHSEED": HASH_SEED}
        )
    logging.disable(logging.WARNING)
    tally = simulate(chosen.first, chosen.seeds, chosen.out)
    sys.stdout.write(f"{tally.table()}\n")
    return bool(tally.wrong)


if __name__ == "__main__":
    raise SystemExit(main())
