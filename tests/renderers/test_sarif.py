"""SARIF 2.1.0: the parts of its standard that this file uses, written down as a schema."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from bncli.gate.former import former_fingerprint
from bncli.gate.places import fingerprint
from bncli.renderers.interface import RenderContext
from bncli.renderers.sarif import render
from bncli.report import Suppressed, Unread
from bncli.rulebook import RULES
from tests.findings import finding, of_layers, report


def closed(required: str = "", **properties: object) -> dict[str, object]:
    """An object with these properties and no others; SARIF's objects are closed."""
    return {
        "type": "object",
        "required": required.split(),
        "properties": properties,
        "additionalProperties": False,
    }


def array(items: object, least: int = 0) -> dict[str, object]:
    return {"type": "array", "items": items, "minItems": least}


TEXT = {"type": "string", "minLength": 1}
BAG = {"type": "object"}
MESSAGE = closed("text", text=TEXT, markdown=TEXT)
LEVEL = {"enum": ["none", "note", "warning", "error"]}
URI = {"type": "string", "pattern": r"^(file:///)?([A-Za-z0-9._~/-]|%[0-9A-F]{2})*$"}
PHYSICAL = closed(
    "artifactLocation",
    artifactLocation=closed("uri", uri=URI),
    region=closed("startLine", startLine={"type": "integer", "minimum": 1}),
)
LOCATION = closed(
    physicalLocation=PHYSICAL,
    logicalLocations=array(closed(fullyQualifiedName={"type": "string"}), 1),
)
RULE = closed(
    "id",
    id=TEXT,
    name=TEXT,
    shortDescription=MESSAGE,
    fullDescription=MESSAGE,
    help=MESSAGE,
    defaultConfiguration=closed("level", level=LEVEL),
)
RESULT = closed(
    "message",  # the only one that the standard requires (3.27.11)
    ruleId=TEXT,
    ruleIndex={"type": "integer", "minimum": 0},
    level=LEVEL,
    message=MESSAGE,
    locations=array(LOCATION),
    partialFingerprints={"type": "object", "additionalProperties": TEXT},
    suppressions=array(
        closed(
            "kind",
            kind={"enum": ["inSource", "external"]},
            status={"enum": ["accepted", "underReview", "rejected"]},
            justification=TEXT,
        )
    ),
    properties=BAG,
)
INVOCATION = closed(
    "executionSuccessful",
    executionSuccessful={"type": "boolean"},
    exitCode={"type": "integer"},
    toolExecutionNotifications=array(
        closed("message", level=LEVEL, message=MESSAGE, locations=array(LOCATION))
    ),
)
RUN = closed(
    "tool",
    tool=closed(
        "driver",
        driver=closed("name", name=TEXT, version=TEXT, semanticVersion=TEXT, rules=array(RULE)),
    ),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    automationDetails=closed(id=TEXT),
    invocations=array(INVOCATION, 1),
    results=array(RESULT),
    properties=BAG,
)
SARIF = Draft202012Validator(
    closed(
        "version runs", **{"$schema": TEXT, "version": {"const": "2.1.0"}, "runs": array(RUN, 1)}
    )
)


def shown(given_report) -> dict:
    document = json.loads(render(given_report, RenderContext(given_report.exit_code())))
    assert [f"{e.json_path}: {e.message}" for e in SARIF.iter_errors(document)] == []
    (run,) = document["runs"]
    for result in run["results"]:
        assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    return run


def test_the_schema_of_the_test_sees_a_fault():
    assert not SARIF.is_valid({"version": "2.1.0", "runs": [{}]})
    assert not SARIF.is_valid({"version": "2.0.0", "runs": []})


def test_every_rule_brings_its_help():
    run = shown(report(*(finding(rule.code, severity=rule.severity.value) for rule in RULES)))
    described = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in described] == [rule.code for rule in RULES]
    levels = {"error": "error", "warning": "warning", "info": "note"}
    levels_of = {result["ruleId"]: result["level"] for result in run["results"]}
    for rule, known in zip(described, RULES, strict=True):
        assert rule["fullDescription"]["text"] == known.summary
        for part in (known.hint, known.symptom, known.arithmetic, known.certainty):
            assert part in rule["help"]["text"]
            assert part in rule["help"]["markdown"].replace("\\", "")
        assert rule["defaultConfiguration"]["level"] == levels[known.severity.value]
        assert levels_of[known.code] == levels[known.severity.value]


def test_a_rule_out_of_the_catalogue_is_no_bug():
    assert shown(report(finding("XY1")))["tool"]["driver"]["rules"][0]["id"] == "XY1"


def test_a_result_has_its_place_and_its_fingerprint():
    given_report = of_layers("m.a", "m.b", faulty=["m.b"], path="a b/net[1].pt")
    (result,) = shown(given_report)["results"]
    (location,) = result["locations"]
    assert location["physicalLocation"]["artifactLocation"]["uri"] == "a%20b/net%5B1%5D.pt"
    assert location["logicalLocations"] == [{"fullyQualifiedName": "m.b"}]
    assert result["message"]["text"] == "m.b: a fact."
    (only,) = given_report.findings
    assert result["partialFingerprints"] == {
        "bncli/v1": former_fingerprint(only, given_report),
        "bncli/v2": fingerprint(only, given_report),
    }


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("net.pt", "net.pt"),
        ("/data/net.pt", "file:///data/net.pt"),
        ("a:b.pt", "a%3Ab.pt"),  # no scheme
        ("ü.pt", "%C3%BC.pt"),
        ("100%.pt", "100%25.pt"),
    ],
)
def test_paths_become_uris(path, uri):
    (result,) = shown(report(finding(), read=(path,)))["results"]
    physical = result["locations"][0]["physicalLocation"]
    assert physical["artifactLocation"]["uri"] == uri


def test_standard_input_has_no_uri():
    (result,) = shown(report(finding(), read=("-",)))["results"]
    assert "physicalLocation" not in result["locations"][0]


def test_what_is_suppressed_is_there_with_its_reason():
    run = shown(report(suppressed=(Suppressed(finding(), "baseline"),)))
    (result,) = run["results"]
    assert result["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "baseline"}
    ]
    assert len(run["tool"]["driver"]["rules"]) == 1


@pytest.mark.parametrize(
    ("more", "successful", "code", "said"),
    [
        ({}, True, 0, None),
        ({"unread": (Unread("b.pt", "no."),)}, False, 2, "b.pt: no."),
        ({"nothing_checked": True, "verdict": "No layer."}, False, 3, "No layer."),
    ],
)
def test_the_invocation_says_how_it_ended(more, successful, code, said):
    (invocation,) = shown(report(**more))["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (successful, code)
    notes = [note["message"]["text"] for note in invocation.get("toolExecutionNotifications", [])]
    assert notes == ([said] if said else [])


@given(st.text(max_size=20), st.text(max_size=20), st.floats())
def test_anything_is_valid(path, subject, number):
    shown(
        report(
            finding(subject=subject, path=path, evidence={"a": [number]}),
            read=(path,),
            verdict=subject,
        )
    )
