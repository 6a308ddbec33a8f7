"""A quick portion of the fuzzer; `python -m tests.loaders.fuzz` is the long run."""

import argparse
import pickle
import random
import subprocess
import sys
from pathlib import Path

import pytest

from bncli.loaders import open_file

from . import fuzz
from .files import samples
from .fuzz import check, mutate
from .pickles import torch_zip

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("seed", "each"),
    [(11, 40), *(pytest.param(seed, 1000, marks=pytest.mark.exhaustive) for seed in (11, 12))],
)
def test_mutants_of_every_container_give_values_or_one_sentence(seed, each, tmp_path):
    done = subprocess.run(
        [
            sys.executable, "-m", "tests.loaders.fuzz",
            f"--each={each}", f"--seed={seed}", f"--keep={tmp_path}",
        ],
        capture_output=True, text=True, cwd=ROOT, timeout=7200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    tried = {line.partition(":")[0] for line in done.stdout.splitlines() if " mutants, " in line}
    assert tried >= {*samples()}


def test_a_mutant_that_ends_the_process_is_reported_and_the_rest_are_tried(tmp_path, capsys):
    """Planted: seeds whose first mutants cannot even be made; the process ends with a traceback."""
    files = tmp_path / "seeds"
    files.write_bytes(pickle.dumps({"gone": ("x", {"x": b""})}))
    (tmp_path / "mutant").mkdir()
    args = argparse.Namespace(each=2, seed=1, keep=tmp_path)
    tally, failures = fuzz.run("gone", args, files)
    assert tally.mutants == 2
    assert len(failures) == 2
    assert failures[0].startswith("gone 0: the process ended with 1, ")


def test_the_same_seed_gives_the_same_mutants():
    data = bytes(range(200))
    assert [mutate(random.Random(5), data, [data]) for _ in range(3)] == [
        mutate(random.Random(5), data, [data]) for _ in range(3)
    ]


def test_the_fuzzer_sees_an_error_that_is_none_of_ours(tmp_path, monkeypatch):
    """Planted: a loader that lets an IndexError out."""
    path = tmp_path / "x"
    path.write_bytes(torch_zip(b"N"))
    assert check(path)
    monkeypatch.setattr("bncli.loaders.torch_zip.detect", lambda source: source.head[10**6])
    with pytest.raises(IndexError):
        open_file(path)
