"""One line a finding, that grep and an editor take apart."""

from __future__ import annotations

from bncli.errors import ExitCode
from bncli.renderers.concise import render
from bncli.renderers.interface import RenderContext
from bncli.report import Unread
from tests.findings import finding, of_layers, report

CONTEXT = RenderContext(ExitCode.FINDING)


def test_a_line_has_the_place_the_rule_and_the_claim():
    given = of_layers("70.1", "71.1", faulty=["70.1"], path="h70.pth", message="it is NaN.")
    assert render(given, CONTEXT) == "h70.pth::70.1: error BN001 it is NaN\n"


def test_every_place_has_a_line_of_its_own():
    layers = [f"layer{n}" for n in range(30)]
    text = render(of_layers(*layers, faulty=layers, verdict="FAIL  30 errors"), CONTEXT)
    lines = text.splitlines()
    assert lines == [*(f"net.pt::{name}: error BN001 a fact" for name in layers), "FAIL  30 errors"]


def test_notes_files_and_places_without_a_file():
    given = report(
        finding(severity="info", subject="channel 0"), read=(), unread=(Unread("b.pt", "no."),)
    )
    assert render(given, CONTEXT) == "b.pt: error no.\nchannel 0: note BN001 a fact\n"


def test_a_name_is_one_line_and_no_command():
    given = report(finding(subject="a\n::error::b", path="::warning::x"), read=())
    text = render(given, CONTEXT)
    assert text == r"\x3a:warning::x: a\x0a::error::b: error BN001 a fact" + "\n"
