"""Reports that hold one of everything."""

from __future__ import annotations

import math

import pytest

from bncli.report import Chart, Column, Finding, Report, Severity, Table
from tests.renderers.reports import MARKUP


@pytest.fixture
def everything():
    """One of each kind of thing that a report can hold."""
    rows = [
        {
            "name": "layer1.bn",
            "value": 1 / 3,
            "count": 8,
            "ok": True,
            "index": [0, 1],
            "gone": None,
        },
        {
            "name": "ünïcode 雪",
            "value": math.nan,
            "count": 0,
            "ok": False,
            "index": [],
            "gone": None,
        },
        {"name": MARKUP, "value": math.inf, "count": -7, "ok": True, "index": [3], "gone": None},
        {"name": "", "value": -math.inf, "count": 2**63, "ok": False, "index": [1.5], "gone": None},
    ]
    columns = tuple(Column(key, key) for key in rows[0])
    second = Table(
        "second",
        "A second table",
        (Column("channel", "channel"), Column("share", "used", ".1%")),
        [{"channel": 0, "share": 0.286}],
        note="A note.",
    )
    findings = (
        Finding("BN001", Severity.ERROR, "channel 3", "2 NaN", {"nan": [2, math.nan]}, "Fix it."),
        Finding("BN002", Severity.WARNING, "channels 0 and 1", "|mean|/std is 2048"),
        Finding("BN008", Severity.INFO, "every channel", "2 values each", {"count": 2}),
    )
    facts = {"input": "a [b].npy", "shape": (4, 3), "eps": 1e-5, "unknown": None, "worst": math.inf}
    chart = Chart("loss", "Loss", [0.0, 1.0], {"a": [0.5, None], "b": [math.nan, 2.0]})
    return Report(
        "compute", facts, (Table("main", "The main table", columns, rows), second), findings,
        (chart,), verdict="FAIL  bncli and torch differ in 1 of 10 quantities; 1 error",
        word="FAIL",
        subject=("a [b].npy  float32 (4, 3)",),
    )  # fmt: skip


@pytest.fixture
def fixed():
    """A report whose every number can be checked by hand: values 1, 2, 3, 4 and 1, 1, 1, 5."""
    rows = [
        {"channel": 0, "mean": 2.5, "var": 1.25, "unbiased_var": 5 / 3, "index": (0, 1)},
        {"channel": 1, "mean": 2.0, "var": 3.0, "unbiased_var": 4.0, "index": ()},
        {"channel": 2, "mean": math.nan, "var": math.inf, "unbiased_var": None, "index": (12, 3)},
    ]
    table = Table(
        "channels",
        "Channels",
        (
            Column("channel", "channel"), Column("mean", "mean"), Column("var", "var"),
            Column("unbiased_var", "unbiased_var", ".3g"), Column("index", "index"),
        ),
        rows,
        note="Made by hand.",
    )  # fmt: skip
    findings = (
        Finding(
            "BN001", Severity.ERROR, "channel 2", "1 NaN among 4 values per channel",
            {"channels": [2], "nan": [1]}, "Look at what produced the input.",
        ),
        Finding("BN008", Severity.INFO, "every channel", "4 values each"),
    )  # fmt: skip
    facts = {"input": "x[0].npy", "shape": (4, 3), "eps": 1e-5, "affine": True, "seed": None}
    return Report(
        "compute",
        facts,
        (table,),
        findings,
        verdict="FAIL  1 error, 1 note",
        word="FAIL",
        subject=("x[0].npy  (4, 3)",),
        read=("x[0].npy",),
    )
