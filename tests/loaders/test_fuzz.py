"""A quick portion of the fuzzer; `python -m tests.loaders.fuzz` is the long run."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from bncli.loaders import open_file

from .fuzz import check, mutate
from .pickles import torch_zip

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("seed", "mutants"),
    [(11, 1000), *(pytest.param(seed, 4000, marks=pytest.mark.exhaustive) for seed in (11, 12))],
)
def test_mutants_give_values_or_one_sentence(seed, mutants):
    done = subprocess.run(
        [sys.executable, "-m", "tests.loaders.fuzz", f"--mutants={mutants}", f"--seed={seed}"],
        capture_output=True, text=True, cwd=ROOT, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failures" in done.stdout


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
