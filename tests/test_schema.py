"""The published JSON Schema: it is one, `bncli schema` prints it, and it sees a missing key.

That every report fits it, `Result.report` checks wherever a test reads one.
"""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from bncli.renderers import Format, renderer
from bncli.renderers.interface import RenderContext
from bncli.report import Severity, Suppressed, Unread

from .calls import CALLS, LIVE, NAMES, TUTORIAL
from .conftest import schema
from .findings import finding, report


@pytest.fixture
def reported(run, repository, monkeypatch):
    """A command's report, by its name."""
    monkeypatch.chdir(repository)
    return lambda name: run(name, *CALLS.get(name, ()), "-f", "json").report


def test_it_is_a_schema():
    Draft202012Validator.check_schema(schema().schema)


def test_every_command_is_described():
    described = {
        branch["if"]["properties"]["command"]["const"]: branch["then"]["$ref"]
        for branch in schema().schema["allOf"]
    }
    assert set(NAMES) <= set(described) == set(CALLS)
    assert all(definition == f"#/$defs/{name}" for name, definition in described.items())


def without(document: dict, path: tuple) -> dict:
    """The document without what is at `path`."""
    document = copy.deepcopy(document)
    inner = document
    for step in path[:-1]:
        inner = inner[step]
    del inner[path[-1]]
    return document


def promises(document: dict) -> list[tuple]:
    """The path of everything in a report that the schema requires of its command."""
    whole = schema().schema
    definition = whole["$defs"][document["command"]]
    branches = definition.get("anyOf", [definition])
    fits = [branch for branch in branches if schema().evolve(schema=branch).is_valid(document)]
    definition = fits[0]["properties"]
    paths = [(key,) for key in whole["required"]]
    paths += [("facts", key) for key in definition.get("facts", {}).get("required", ())]
    for table, described in definition["tables"].get("properties", {}).items():
        if document["tables"].get(table):
            paths += [("tables", table)]
            keys = described.get("items", {}).get("required", ())
            paths += [("tables", table, 0, key) for key in keys]
    if document["findings"]:
        paths += [("findings", 0, key) for key in whole["$defs"]["finding"]["required"]]
    return paths


MORE = (
    ("compare-checkpoints", "examples/compare/client*.pt", "--with=examples/compare/global.pt"),
    ("compare-checkpoints", "examples/compare/epoch*.pt"),
    ("diagnose", *LIVE),
    ("conventions", "--from", "keras3", "--to", "pytorch"),
    ("diff", TUTORIAL),
    ("rules", "BN001"),
)
"""Calls of commands whose reports have more than one shape."""


@pytest.mark.parametrize("call", [*((name, *CALLS.get(name, ())) for name in NAMES), *MORE])
def test_a_key_that_disappears_is_seen(run, repository, monkeypatch, call):
    monkeypatch.chdir(repository)
    document = run(*call, "-f", "json").report
    paths = promises(document)
    assert len(paths) > 10
    for path in paths:
        assert not schema().is_valid(without(document, path)), path


def test_the_table_of_a_comparison_keeps_its_keys(reported):
    document = reported("compute")
    for key in schema().schema["$defs"]["differences"]["items"]["required"]:
        assert not schema().is_valid(without(document, ("tables", "differences", 2, key)))


def test_a_value_of_another_kind_is_seen(reported):
    document = copy.deepcopy(reported("compute"))
    document["tables"]["channels"][0]["mean"] = "6.5"
    assert not schema().is_valid(document)


def test_what_else_a_report_can_hold_fits():
    given = report(
        *(finding(severity=severity.value, evidence={"a": [1, None]}) for severity in Severity),
        suppressed=tuple(Suppressed(finding(), by) for by in ("select", "ignore", "baseline")),
        unread=(Unread("b.pt", "it is cut short."),),
    )
    document = json.loads(renderer(Format.JSON)(given, RenderContext(given.exit_code())))
    assert schema().is_valid(document)
    assert [item["by"] for item in document["suppressed"]] == ["select", "ignore", "baseline"]
    assert document["unread"] == [{"path": "b.pt", "problem": "it is cut short."}]
    document["suppressed"][0]["by"] = "whim"
    assert not schema().is_valid(document)


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("compute nan.npy", 1),
        ("compute x.npy nan.npy --momentum none", 1),
        ("compute x.npy --no-affine --no-track-running-stats", 0),
        ("trace nan.npy --backward", 1),
        ("trace x.npy --momentum none --eval", 0),
        ("diff x.npy nan.npy", 1),
        ("diff nan.npy", 1),
        ("diff net.pt other.npz", 3),
        ("identify x.npy nan.npy", 1),
        ("identify x.npy none.npy", 3),
        ("compare-norms nan.npy", 1),
        ("compare-norms none.npy", 1),
        ("simulate-ema nan.npy", 1),
        ("simulate-ema x.npy --momentum none", 0),
        ("simulate-ema x.npy --convention keras3 --convention pytorch", 0),
        ("conventions --from pytorch --to flax --count 2", 0),
        ("inspect-checkpoint net.pt", 3),
        ("inspect-checkpoint net.pt x.npy missing.pt", 2),
    ],
)
def test_the_report_of_an_odd_input_fits(run, save, call, code):
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    save("x.npy", x)
    save("none.npy", np.full_like(x, np.nan))
    x[0, 0], x[1, 1] = np.nan, np.inf
    save("nan.npy", x)
    save("net.pt", {"weight": torch.ones(3)})
    save("other.npz", bias=np.ones(3), mean=np.ones(3))
    result = run(*call.split(), "-f", "json")
    assert (result.code, bool(result.report["tables"])) == (code, True)


def test_a_number_that_is_not_finite_is_null(run, save):
    save("x.npy", np.float32([[np.nan, 1], [np.inf, 2], [1, 3]]))
    assert run("compute", "x.npy", "-f", "json").report["tables"]["channels"][0]["mean"] is None


@pytest.mark.parametrize(("shard", "code"), [("0/2", 0), ("3/4", 3)])
def test_a_shard_is_described_and_one_without_inputs_has_all_facts(run, save, shard, code):
    for i in range(3):
        save(f"s{i}.npy", np.eye(4, 3, dtype=np.float32) * i)
    call = ("compute", "s*.npy", "--shard", shard, "--momentum", "none", "-f", "json")
    document = run(*call).report
    assert (document["exit_code"], document["facts"]["shard"]) == (code, shard)
    assert document["facts"]["momentum"] == "none"
    assert document["facts"]["count"] == (8 if code == 0 else 0)
    for wrong in ("first", 0, None):
        facts = document["facts"] | {"shard": wrong}
        assert not schema().is_valid(document | {"facts": facts})


def test_the_part_of_a_report_is_described(run, repository, monkeypatch):
    monkeypatch.chdir(repository)
    call = ("inspect-checkpoint", "examples/checkpoint/*.pt", "--shard", "0/2", "--fail-on=never")
    document = run(*call, "-f", "json").report
    part = document["facts"]["part"]
    described = schema().schema["$defs"]["part"]
    assert set(part) == set(described["required"]) == set(described["properties"])
    for key in part:
        assert not schema().is_valid(without(document, ("facts", "part", key))), key
    for key, wrong in (("k", -1), ("n", 0), ("inputs", [["a.pt", 1]]), ("call", "bncli")):
        facts = document["facts"] | {"part": part | {key: wrong}}
        assert not schema().is_valid(document | {"facts": facts}), key
