"""The page as a whole: valid, complete, alone, alike each time, and harmless."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from bncli.errors import ExitCode, MissingBackendError
from bncli.pictures import Axis, Chain, Kind, Link, Series
from bncli.renderers import Format
from bncli.renderers.html import check, fragment
from bncli.renderers.interface import RenderContext
from bncli.report import Column, Finding, Report, Severity, Table, Unread
from tests.calls import CALLS
from tests.renderers.drawing.pictures.examples import HOSTILE, every_kind, picture
from tests.renderers.html.parsed import (
    HTML,
    classed,
    every,
    parsed,
    parsed_fragment,
    said,
    sections,
)
from tests.renderers.reports import render, report

LOADED = re.compile(
    r"(?i)\b(src|srcset|poster|action|formaction|data|xlink:href)\s*=|url\(|@import"
)
"""What makes a browser ask for something else."""


def page(given: Report, **context) -> str:
    return render(Format.HTML, given, **context)


@pytest.fixture
def whole(everything):
    """A report with everything that a page can show."""
    chain = Chain("steps", "Steps", (Link("mean", "sum / n", "6 / 3", "2"),), "Two.")
    return replace(
        everything,
        pictures=(every_kind(log=True), chain),
        remarks=("A remark.",),
        unread=(Unread("gone.pt", "gone.pt: there is no such file."),),
    )


def test_it_is_valid_and_in_order(whole):
    root = parsed(page(whole))
    assert root.get("lang") == "en"
    names = [each.get("name") for each in every(root, "meta")]
    assert "viewport" in names
    order = list(sections(root))
    assert order == ["Findings", "Result", "Pictures", "Remarks", "Everything else"]
    (heading,) = every(root, "h1")
    assert said(heading) == "FAIL bncli and torch differ in 1 of 10 quantities; 1 error"
    assert said(classed(root, "subject")[0]) == "a [b].npy float32 (4, 3)"
    levels = [int(each.tag[-1]) for each in root.iter() if re.search(r"\}h[1-6]$", str(each.tag))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below - above <= 1 for above, below in pairwise(levels))


def test_it_needs_nothing_from_elsewhere(whole):
    text = page(whole)
    assert not LOADED.search(re.sub(r">[^<]*<", "><", text)), "attributes"
    root = parsed(text)
    assert not every(root, "script")
    assert not every(root, "link")
    assert not every(root, "img")
    for element in root.iter():
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            if name.endswith("href"):
                assert value.startswith("#")
    (style,) = every(root, "style")
    assert not LOADED.search(said(style))
    assert "http" not in text


def test_identifiers_are_used_once_and_lead_somewhere(whole):
    root = parsed(page(whole))
    names = Counter(each.get("id") for each in root.iter() if each.get("id"))
    assert max(names.values()) == 1
    wanted = {each.get("href")[1:] for each in root.iter() if each.get("href")}
    for each in root.iter():
        for name in ("aria-labelledby", "aria-describedby"):
            wanted |= set(filter(None, (each.get(name) or "").split()))
    assert wanted <= set(names)


def test_every_finding_is_there_once(whole):
    root = parsed(page(whole))
    text = said(root)
    blocks = classed(root, "finding")
    assert len(blocks) == len(whole.findings) + 1
    for finding, block in zip(whole.findings, blocks[1:], strict=True):
        assert text.count(finding.message) == 1
        for part in (finding.code, finding.subject, finding.message, finding.severity.label):
            assert part in said(block)
    assert "there is no such file" in said(blocks[0])
    assert said(root).count("Fix it.") == 1


@pytest.mark.parametrize("name", ["diagnose", "inspect-checkpoint", "compare-checkpoints"])
def test_pictures_tell_no_finding_and_no_numbers_again(run, repository, monkeypatch, name):
    monkeypatch.chdir(repository)
    call = (name, *CALLS[name])
    findings = json.loads(run(*call, "-f", "json").stdout)["findings"]
    assert findings
    root = parsed(run(*call, "-f", "html").stdout)
    captions = [said(each) for each in every(root, "figcaption")]
    for finding in findings:
        message = " ".join(finding["message"].rstrip(".").split())
        assert not any(message in caption for caption in captions)
    assert any(findings[0]["code"] in caption for caption in captions)
    assert not any(text in said(svg) for svg in every(root, "svg") for text in captions)
    assert not [each for each in classed(root, "fold") if "chart" in said(each)]


def many_layers(number: int) -> tuple[Finding, ...]:
    return tuple(
        Finding(
            "BN203", Severity.ERROR, f"layer{n}.bn", f"running_var of {n} is odd", path="a.pt",
            claim="running_var is odd", hint=f"Fix {n % 4}.", detail=f"It is {n}.",
        )
        for n in range(number)
    )  # fmt: skip


def test_no_place_of_a_finding_is_left_out():
    findings = many_layers(40)
    names = {"a.pt": [finding.subject for finding in findings]}
    root = parsed(page(report(findings=findings, read=("a.pt",), names=names)))
    (block,) = classed(root, "finding")
    text = said(block)
    for finding in findings:
        assert len(re.findall(rf"{finding.subject}\b", text)) >= 1
        assert text.count(f"{finding.message}") == 1
        assert text.count(finding.detail) == 1
    assert "-v" not in text
    (fold, *_) = every(block, "details")
    assert said(every(fold, "summary")[0]) == "36 more"


def test_names_of_many_places_are_folded_after_the_first():
    findings = tuple(
        Finding("BN203", Severity.ERROR, f"a.long.name.of.a.layer{n}", "It is so", path="a.pt")
        for n in range(60)
    )
    root = parsed(page(report(findings=findings, read=("a.pt",))))
    (fold,) = classed(root, "rest")
    assert said(fold).startswith("The other 54")
    text = said(root)
    assert all(len(re.findall(rf"{f.subject}\b", text)) == 1 for f in findings)


def test_no_blank_stands_before_the_colon_after_folded_names():
    """In the element itself, where a browser breaks lines: the fold comes after the sentence."""
    findings = [
        Finding("BN203", Severity.ERROR, f"layer{n}", f"It is {n % 2}", claim="It is")
        for n in range(120)
    ]
    root = parsed(page(report(findings=tuple(findings))))
    (item, *_) = every(classed(root, "places")[0], "li")
    (fold,) = classed(item, "rest")
    (name,) = classed(item, "where")[:1]
    hidden = re.match(r"The other (\d+)", said(fold))[1]
    assert name.tail.rstrip() == f" and {hidden} more: It is 0"


def test_two_blocks_of_one_code_have_a_place_each():
    findings = (
        Finding("BN203", Severity.ERROR, "a", "It is so"),
        Finding("BN203", Severity.INFO, "b", "It is so too"),
    )
    root = parsed(page(report(findings=findings)))
    assert [each.get("id") for each in classed(root, "finding")] == ["BN203", "BN203-2"]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: ascii(name[:12]))
def test_a_hostile_name_is_text_wherever_it_stands(name):
    table = Table(name, name, (Column(name, name),), [{name: name}, {name: 1}], name)
    series = Series(name, Kind.RANGE, [0], [1], [2])
    given = Report(
        "compute",
        {name: name},
        (table, replace(table, key="other")),
        (Finding("BN203", Severity.ERROR, name, name, {}, name, detail=name, where=name),),
        pictures=(
            picture(series, x=Axis(name, names=(name,)), y=Axis(name), title=name, text=name),
            Chain(name, name, (Link(name, name, name, name),), name),
        ),
        verdict=name,
        subject=(name,),
        remarks=(name,),
        unread=(Unread(name, name),),
    )
    text = page(given)
    text.encode()
    root = parsed(text)
    plain = parsed(page(eval_plain(given, name)))
    kinds = Counter(
        each.tag for each in root.iter() if not str(each.tag).startswith("{http://www.w3.org/2000")
    )
    assert kinds == Counter(
        each.tag for each in plain.iter() if not str(each.tag).startswith("{http://www.w3.org/2000")
    )
    assert not every(root, "script")
    assert "49" not in said(every(root, "h1")[0])
    assert "\u202e" not in text


def eval_plain(given: Report, name: str) -> Report:
    """The same report with a harmless name: x, or as many as make a long one."""
    other = "x" if len(name) < 100 else name
    if name == "":
        return given
    table = Table(other, other, (Column(other, other),), [{other: other}, {other: 1}], other)
    return replace(
        given,
        facts={other: other},
        tables=(table, replace(table, key="other")),
        findings=(
            Finding("BN203", Severity.ERROR, other, other, {}, other, detail=other, where=other),
        ),
        pictures=(
            picture(Series(other, Kind.RANGE, [0], [1], [2]), title=other, text=other),
            Chain(other, other, (Link(other, other, other, other),), other),
        ),
        verdict=other,
        subject=(other,),
        remarks=(other,),
        unread=(Unread(other, other),),
    )


def test_the_same_report_makes_the_same_page(whole):
    assert page(whole) == page(whole)
    assert page(whole, width=40, verbose=True, color=True) == page(whole)


def test_a_call_from_python_says_what_to_install_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    context = RenderContext(ExitCode.OK)
    for made in (lambda: page(report()), lambda: fragment(report(), context)):
        with pytest.raises(MissingBackendError, match="a page of HTML needs jinja2, which is not"):
            made()


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        (("jinja2",), "jinja2, which is not"),
        (("matplotlib",), "matplotlib, which is not"),
        (("jinja2", "matplotlib"), "jinja2 and matplotlib, which are not"),
    ],
)
def test_without_the_extra_it_says_what_to_install(
    run, folder, save, monkeypatch, missing, sentence
):
    check("-o")
    save("x.npy", np.zeros((8, 2)))
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingBackendError):
        check("-o")
    install = "installed here: python -m pip install 'bncli[report]'\n"
    for flags, flag in (
        (("-f", "html"), "--format html"),
        (("-o", "r.html"), "--output r.html"),
        (("-q", "-o", "R.HTML"), "--output R.HTML"),
    ):
        result = run("compute", "x.npy", *flags)
        assert tuple(result) == (2, "", f"bncli: {flag} needs {sentence} {install}")
    assert [path.name for path in folder.iterdir()] == ["x.npy"]
    assert run("compute", "x.npy", "-q", "-f", "html").code == 0  # which makes no page
    assert run("compute", "gone.npy", "-f", "html").stderr.startswith("bncli: --format html needs")


def test_what_matplotlib_has_to_say_is_not_said(run_process, save, folder):
    """It has no place for its cache here, and no letter for this name."""
    result = run_process(
        "compute", save("雪.npy", np.ones((8, 2))), "-f", "html",
        env={"MPLCONFIGDIR": "/dev/null/no"},
    )  # fmt: skip
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.startswith("<!doctype html>")


def test_a_fragment_is_a_part_of_any_page(whole):
    context = RenderContext(ExitCode.FINDING)
    text = fragment(whole, context)
    root = parsed_fragment(text)
    assert [each.tag for each in root] == [f"{HTML}style", f"{HTML}div"]
    assert root[1].get("class") == "bncli"
    assert "<html" not in text
    for selector in re.findall(r"(?m)^\s*([^@{}\n]*?)\s*\{", said_style(root)):
        for each in selector.split(","):
            assert each.strip().startswith((".bncli", "from", "to")), each
    other = fragment(replace(whole, verdict="PASS  other"), context)
    own, others = (set(re.findall(r' id="([^"]+)"', each)) for each in (text, other))
    assert own
    drawn = {name for name in own & others if "table" in name or "BN0" in name}
    assert not drawn  # two fragments of one page share nothing but what is alike in both


def said_style(root) -> str:
    return "".join(root[0].itertext())


def test_the_exit_code_and_the_version_close_the_page():
    root = parsed(page(report(), exit_code=ExitCode.NOTHING))
    assert re.fullmatch(r"bncli \S+, exit code 3", said(every(root, "footer")[0]))


def test_a_page_of_a_hundred_layers_is_small(run, save):
    rng = np.random.default_rng(0)
    layers = {}
    for n in range(100):
        name = f"backbone.layer{n // 25 + 1}.{n % 25}.conv_block.bn{n % 3 + 1}"
        variance = 10 ** rng.uniform(-4, 0, 64)
        variance[n % 64] = np.nan if n % 10 == 0 else 0 if n % 10 == 5 else 1
        layers |= {
            f"{name}.weight": rng.normal(1, 0.1, 64), f"{name}.bias": np.zeros(64),
            f"{name}.running_mean": rng.normal(0, 1, 64), f"{name}.running_var": variance,
            f"{name}.num_batches_tracked": np.array(500 + n % 7),
        }  # fmt: skip
    for name in ("net.npz", "other.npz"):
        np.savez(name, **{k: v.astype("f4") if v.ndim else v for k, v in layers.items()})
        layers = {key: value * 1.1 if value.ndim else value for key, value in layers.items()}
    for call in (
        ("inspect-checkpoint", "net.npz"),
        ("compare-checkpoints", "net.npz", "other.npz"),
    ):
        text = run(*call, "-f", "html", "--fail-on", "never").stdout
        assert len(text.encode()) <= 500_000
        assert len(every(parsed(text), "svg")) >= 2
        assert len(every(parsed(text), "tr")) > 100
