"""The public Python API: names resolve on first use, importing bncli costs nothing; the map."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

import bncli
from tests.conftest import REPOSITORY

COMMANDS = {
    "capture", "compare_checkpoints", "compare_norms", "compute", "conventions", "diagnose", "diff",
    "identify", "inspect_checkpoint", "recalibrate", "rules", "schema", "simulate_ema", "trace",
}  # fmt: skip
OTHERS = {
    "BncliError", "ExitCode", "__version__", "channel_stats", "main", "merge", "open_file",
    "open_layer", "open_tensor", "testing",
}  # fmt: skip


def test_public_names_stay():
    assert set(bncli.__all__) == COMMANDS | OTHERS
    assert len(bncli.__all__) == len(COMMANDS | OTHERS)


def test_every_public_name_is_there():
    for name in bncli.__all__:
        assert getattr(bncli, name) is not None
    assert set(bncli.__all__) <= set(dir(bncli))


def test_another_name_is_not():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = bncli.nonsense


def test_import_costs_nothing():
    probe = "import sys, bncli; print([m for m in ('numpy', 'typer', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_statistics_of_an_array():
    stats = bncli.channel_stats(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert stats.mean.tolist() == [2.0, 5.0]
    assert stats.var.tolist() == [1.0, 0.0]
    assert stats.unbiased_var.tolist() == [2.0, 0.0]


def floors() -> list[set[str]]:
    """The rooms of the map in the package's docstring, floor by floor from above."""
    floors: list[set[str]] = []
    for number, room in re.findall(
        r"^    (\d\d| \d|  )  (\w+) {2,}\S", bncli.__doc__, re.MULTILINE
    ):
        if number.strip():
            floors.append(set())
        assert number.strip() in {"", str(13 - len(floors))}
        floors[-1].add(room)
    return floors


def test_the_map_has_every_room_and_no_other():
    there = {
        path.stem
        for path in (REPOSITORY / "bncli").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert set().union(*floors()) == there - {"__init__"}


def test_the_map_has_the_floors_of_the_contract():
    contract = (
        (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8").partition("\nlayers = [")[2]
    )
    layers = re.findall(r'^    "(.+?)",', contract.partition("\n]")[0], re.MULTILINE)
    assert floors() == [set(re.split(" [:|] ", layer)) for layer in layers]


def test_what_flows_in_the_map_is_there():
    from bncli import batchnorm, model, report

    names = set(re.findall(r"\b[A-Z]\w+", bncli.__doc__.partition("What flows:")[2]))
    assert len(names) > 7
    for name in names:
        assert any(hasattr(home, name) for home in (batchnorm, model, report)), name
