"""The matrix of live faults: what was planted, and what bncli names.

As a script, `python -m tests.live.faults.matrix --half 0` prints a line for every net, fault and
seed of the half on which thresholds are set, and `--half 1` of the one on which they are judged.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bncli.live.batch import Batch
from bncli.live.session import Session
from bncli.live.trials import run_trials
from bncli.model.capture import Capture, Trials
from bncli.report import Certainty, Finding, Severity
from bncli.rulebook.live.causes import Diagnosis, diagnosis, input_suspected, suspects
from bncli.rulebook.live.measures import measures
from tests.live.faults.healthy import HEALTHY, healthy_net
from tests.live.faults.planting import FAULTS, Bench, batches
from tests.live.faults.training import Store, one_thread

CODES = {
    "input scale": ("BN805",),
    "other domain": ("BN810",),
    "padding": ("BN813",),
    "momentum": ("BN701", "BN809"),
    "batches differ": ("BN806",),
    "batch size": ("BN811",),
    "dropout": ("BN812",),
    "other weights": ("BN807",),
    "spoilt": ("BN808",),
    "reset": ("BN101", "BN102", "BN103"),
    "frozen": ("BN815",),
    "batch statistics": ("BN802",),
    "left in training": ("BN801",),
}
"""The rules that name a cause."""

HALVES = (
    (("plain", "unet", "dense"), (0, 2, 4)),
    (("residual", "separable"), (1, 3, 5)),
)
"""Nets and seeds on which thresholds were set, and those on which they are judged."""


@dataclass(frozen=True)
class Cell:
    """A fault (or a healthy kind, without `architecture`) and a seed."""

    name: str
    seed: int
    architecture: str = ""

    def __str__(self) -> str:
        return f"{self.architecture or 'healthy'} {self.name} {self.seed}"


def cells(half: int) -> Iterator[Cell]:
    """Those of one half: the faults, and every other healthy kind over five seeds."""
    architectures, seeds = HALVES[half]
    for seed in seeds:
        for architecture in architectures:
            yield from (
                Cell(name, seed, architecture)
                for name, fault in FAULTS.items()
                if architecture not in fault.without
            )
    yield from (Cell(kind, seed) for seed in range(5) for kind in list(HEALTHY)[half::2])


@dataclass(frozen=True)
class Outcome:
    """What a cell came to: the causes planted, the layer where there is one, and the diagnosis."""

    planted: tuple[str, ...]
    layer: str | None
    found: Diagnosis

    @property
    def codes(self) -> list[str]:
        """The codes that name what was planted."""
        return [code for cause in self.planted for code in CODES[cause]]

    @property
    def named(self) -> list[Finding]:
        """What is said to be wrong, in order; what is merely said, where nothing is."""
        loud = [each for each in self.found.findings if each.severity is not Severity.INFO]
        return loud or list(self.found.findings)

    @property
    def first(self) -> bool:
        """Whether the first thing named was planted, and nothing planted was left out."""
        said = {each.code for each in self.named}
        return (
            bool(self.named)
            and self.named[0].code in self.codes
            and all(said & set(CODES[cause]) for cause in self.planted)
        )

    @property
    def wrongly_certain(self) -> list[str]:
        """The codes that are said to be certain causes and were not planted."""
        return [
            each.code
            for each in self.named
            if each.code not in self.codes
            and each.severity is not Severity.INFO
            and each.certainty is Certainty.CERTAIN
        ]

    @property
    def right_layer(self) -> bool:
        """Whether the finding that names the fault stands at its layer, where there is one."""
        return self.layer is None or any(
            each.evidence.get("layer") == self.layer
            for each in self.named
            if each.code in self.codes
        )

    @property
    def right(self) -> bool:
        """Whether nothing is amiss; a healthy net is to have no warning."""
        if not self.planted:
            return all(each.severity is Severity.INFO for each in self.found.findings)
        return self.first and self.right_layer and not self.wrongly_certain


def outcome(cell: Cell, store: Store) -> Outcome:
    """Run one cell: the capture, the trials of its suspicious layers, the rules."""
    if not cell.architecture:
        net, inputs = healthy_net(cell.name, cell.seed)
        return Outcome((), None, diagnosis(*captured(net, batches(inputs))))
    fault = FAULTS[cell.name]
    case = fault.make(Bench(cell.architecture, cell.seed, store))
    return Outcome(fault.causes, case.layer, diagnosis(*captured(case.model, case.batches)))


def captured(model: nn.Module, data: Sequence[Batch]) -> tuple[Capture, Trials]:
    """What `bncli diagnose` captures and tries, without its command line."""
    session = Session(model, data)
    with one_thread(), session.open():
        capture = session.capture()
        found = measures(capture)
        return capture, run_trials(
            session,
            capture,
            suspects(found),
            input_suspected=input_suspected(capture, found),
        )


def telling(found: Diagnosis) -> str:
    """The numbers that tell causes from each other."""
    errors = [each.error for each in found.measures]
    if not errors:
        return "no statistics"
    first = found.measures[0]
    numbers = {
        "R": found.ratio,
        "first": errors[0],
        "later": max(errors[1:], default=0.0),
        "residual": first.origin.residual if first.origin is not None else None,
        "F": first.evaluation.f_ratio,
        "blamed": float(sum(each.blamed for each in found.measures)),
    }
    return " ".join(f"{k} {'-' if v is None else format(v, '.3g')}" for k, v in numbers.items())


def said(found: Outcome) -> str:
    """What was named, the first one first; a star marks what is certain."""
    return " ".join(
        f"{each.code}{'*' * (each.certainty is Certainty.CERTAIN)}" for each in found.named
    )


def main() -> None:
    """Print every cell of a half, and how many are right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", type=int, choices=(0, 1), default=0)
    parser.add_argument("--only", default="", help="cells whose name holds this")
    parser.add_argument("--folder", type=Path, help="where trained nets are kept")
    parser.add_argument("--wrong", action="store_true", help="print what is wrong alone")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = flags.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        total = right = 0
        for cell in cells(flags.half):
            if flags.only not in str(cell):
                continue
            found = outcome(cell, Store(folder))
            total, right = total + 1, right + found.right
            if not (flags.wrong and found.right):
                mark = "ok   " if found.right else "WRONG"
                planted = " + ".join(found.planted) or "nothing"
                layer = "" if found.right_layer else f" [not at {found.layer}]"
                line = f"{mark} {cell!s:48} {planted:28} {said(found) or '-':24}{layer}"
                print(line, telling(found.found), flush=True)
        print(f"{right} of {total} are right")


if __name__ == "__main__":
    main()
