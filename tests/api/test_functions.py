"""The functions are the commands: what they report, what they take, and how they are found."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

import bncli
from bncli.commands import COMMANDS
from bncli.errors import ExitCode
from tests.calls import CALLS

from .python_calls import python_call

FLAGGED = (
    "compute examples/tutorial/x.npy --channel=0 --eps=1e-3 --momentum=none --no-affine",
    "compute examples/shards/batch0.npy examples/shards/batch1.npy --per-input --channel-axis=1",
    "compute examples/tutorial/x.npy --eval",
    "compute examples/shards/batch0.npy --no-track-running-stats --channel 1-2",
    "compute --values '[[1, 2.5], [3, 4]]' --dtype float64 --momentum 0.25",
    "compute examples/tutorial/x.npy --select BN9 --fail-on info",
    "trace examples/tutorial/x.npy --at 0,0,1,1 --backward --seed 3",
    "trace examples/tutorial/x.npy --channel 1 --arithmetic float32",
    "simulate-ema --generate 8,3,4 --batches 7 --momentum 0.3 --convention keras3 --seed 1",
    "simulate-ema examples/tutorial/x.npy --batch-size 1 --momentum none --torch-threads 1",
    "diff examples/tutorial/x.npy --eval --per-quantity",
    "diff examples/shards/batch0.npy examples/shards/batch1.npy --rtol 1 --atol 100",
    "identify examples/shards/batch0.npy examples/shards/batch1.npy --training --eps 1e-3",
    "inspect-checkpoint examples/checkpoint/net.pt --eps '*.stem.*=1e-3' --momentum none",
    "inspect-checkpoint examples/checkpoint/nan.pt --sort trouble --layer 'layer1.*'",
    "inspect-checkpoint examples/checkpoint/nan.pt --ignore BN --expect-layers 7",
    "compare-checkpoints examples/compare/before.pt examples/compare/after.pt --weights",
    "compare-norms examples/tutorial/x.npy --groups 2 --normalized-shape 2,2 --against torch",
    "conventions --from keras3 --to pytorch --momentum 0.99 --eps 1e-3 --count 5",
    "conventions --to pytorch --momentum none",
    "rules BN203",
    "rules BN2",
)
"""Calls with flags of each kind, at least one of each command that no model runs in."""

LINES = [" ".join([name, *map(json.dumps, words)]) for name, words in CALLS.items()]


@pytest.mark.parametrize("line", [*LINES, *FLAGGED])
def test_the_report_is_that_of_the_command_line(line, run, repository, monkeypatch):
    import shlex

    monkeypatch.chdir(repository)
    name, inputs, given = python_call(line)
    if name == "capture":
        pytest.skip("it returns the statistics")
    report = getattr(bncli, name)(*inputs, **given)
    printed = run(*shlex.split(line), "-f", "json").report
    assert report.to_dict() == printed
    assert report.exit_code() == printed["exit_code"]
    assert report.ok == (printed["exit_code"] == ExitCode.OK)
    assert report.verdict == printed["verdict"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_function_says_what_it_takes(name):
    function = getattr(bncli, name)
    assert function.__name__ == name
    assert function.__module__ in ("bncli", "bncli.api.recorded")
    assert getattr(bncli, name) is function
    assert inspect.signature(function).parameters


def test_a_wrong_argument_is_a_type_error_that_names_the_right_one():
    for given, said in {
        "epsilon": "compute() got an unexpected keyword argument 'epsilon'; did you mean 'eps'?",
        "tolerance": "did you mean 'rtol' and 'atol'?",
        "epss": "did you mean 'eps'?",
        "eval": "write training=False.",
        "output": "write the report with report.save(FILE)",
        "verbose": "report.tables has every table and column",
        "zzzzzz": "got an unexpected keyword argument 'zzzzzz'",
    }.items():
        with pytest.raises(TypeError) as caught:
            bncli.compute([[1.0, 2.0]], **{given: 1})
        assert str(caught.value).rstrip(".").endswith(said.rstrip("."))
    with pytest.raises(TypeError, match="unexpected keyword argument 'try'; did you mean 'try_'"):
        bncli.diagnose("stats.npz", **{"try": 0})
    with pytest.raises(TypeError, match=r"trace\(\) too many positional arguments"):
        bncli.trace("x.npy", "y.npy")


def test_schema_is_the_published_one(repository):
    text = (repository / "bncli" / "report.schema.json").read_text("utf-8")
    assert bncli.schema() == json.loads(text)


def test_a_call_imports_what_it_needs_alone(repository):
    probe = (
        "import sys, bncli\n"
        f"made = bncli.compute({str(repository / 'examples' / 'tutorial' / 'x.npy')!r})\n"
        "heavy = ('torch', 'rich', 'pandas', 'matplotlib', 'jinja2', 'asyncio')\n"
        "print([name for name in heavy if name in sys.modules], made.ok)\n"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[] True\n", "")


def test_another_name_is_not_there():
    from bncli.api import functions

    with pytest.raises(AttributeError, match="nonsense"):
        _ = functions.nonsense
