"""The lists of rules and of conventions in examples/ are what the registries hold.

`pytest tests/test_lists.py --update` writes them anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from bncli.renderers.drawing.cells import format_cell
from bncli.rulebook import FAMILIES, RULES
from bncli.rulebook.interface import Rule
from bncli.running_stats.frameworks import CONVENTIONS
from tests.conftest import REPOSITORY
from tests.test_docs import executed

RENEWED = "This page is written by `python -m pytest tests/test_lists.py --update`."

THREAD = re.compile(r"([\w.-]+/[\w.-]+)#(\d+)")
"""A public thread, as a rule names it."""

ASPECTS = {
    "Symptom": "symptom",
    "Arithmetic": "arithmetic",
    "How sure": "certainty",
    "Fix": "hint",
    "Not to be confused with": "lookalike",
}


def plain(text: object) -> str:
    """Text in which Markdown sees nothing but text."""
    return re.sub(r"([\\`*_|<>\[\]~$&])", r"\\\1", format_cell(text))


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def head(*titles: str) -> Iterator[str]:
    """The two lines that a table begins with."""
    yield ""
    yield row(*titles)
    yield f"|{'---|' * len(titles)}"


def shown(command: str) -> Iterator[str]:
    """A command and what it prints, from the repository's folder."""
    yield "```console"
    yield executed(f"$ {command}", REPOSITORY).rstrip("\n")
    yield "```"


def rules_page() -> Iterator[str]:
    """Every rule: a table for each family, and below it each rule with all that is known."""
    yield "# The rules"
    yield ""
    yield (
        f"Every finding comes from one of these {len(RULES)} rules. By default only errors make "
        "the exit code 1; `--fail-on warning` adds warnings, and `--fail-on info` adds notes as "
        "well. `--ignore CODE` disables a rule. `bncli rules CODE` prints the same explanation in "
        "the terminal:"
    )
    yield ""
    yield from shown("bncli rules BN704 --width 80")
    for family, about in FAMILIES.items():
        members = [rule for rule in RULES if rule.code.startswith(family)]
        yield ""
        yield f"## {family}xx: {about}"
        yield from head("code", "severity", "name", "claim")
        for rule in members:
            link = f"[{rule.code}](#{rule.code.lower()}-{rule.name})"
            yield row(link, rule.how_bad, rule.name, plain(rule.summary))
        for rule in members:
            yield from explained(rule)
    yield ""
    yield RENEWED


def explained(rule: Rule) -> Iterator[str]:
    """A rule with its aspects, a paragraph each."""
    yield ""
    yield f"### {rule.code} {rule.name}"
    yield ""
    claim = plain(rule.summary).rstrip(".")
    yield f"{rule.how_bad.capitalize()}: {claim} ({rule.how_sure})."
    for title, attribute in ASPECTS.items():
        yield ""
        yield f"**{title}.** {plain(getattr(rule, attribute))}"
    if rule.seen:
        threads = (THREAD.fullmatch(thread) for thread in rule.seen)
        links = (f"[{m[0]}](https://github.com/{m[1]}/issues/{m[2]})" for m in threads if m)
        yield ""
        yield f"**Reported in.** {', '.join(links)}"


def conventions_page() -> Iterator[str]:
    """Every convention: its numbers, its names, where it was read, and what else is special."""
    yield "# The conventions"
    yield ""
    yield (
        f"How {len(CONVENTIONS)} frameworks and versions of them keep running statistics. The "
        "momentum is the weight either of the old value or of the new batch, and running_var "
        "averages the biased or the unbiased variance (keras2: n/(n - (1 + eps)) times the biased "
        "one). One command converts from one convention to another:"
    )
    yield ""
    yield from shown("bncli conventions --from keras3 --to pytorch --count 896 --width 80")
    yield ""
    yield "## What each does by default"
    yield ""
    yield (
        "Two columns need an explanation. A batch with one value per channel is refused, counts as "
        "variance 0, is skipped, or makes running_var NaN. Debiased says whether evaluation "
        "corrects for the initial value: no; divided, by the total weight of the batches so far; "
        "or first, since the first batch replaces it."
    )
    yield from head(
        "convention", "momentum", "is the weight of the", "eps", "variance", "begins at",
        "one value per channel", "debiased", "channel axis",
    )  # fmt: skip
    for each in CONVENTIONS:
        yield row(
            each.name,
            plain(each.momentum),
            {"old": "old value", "new": "new batch"}[each.weighs],
            each.eps,
            each.variance,
            f"{each.initial_mean:g}, {each.initial_var:g}",
            each.one_value,
            each.debias,
            each.channel_axis,
        )
    yield ""
    yield "## What everything is called"
    names = ("weight", "bias", "running_mean", "running_var", "momentum", "eps")
    yield from head("convention", *map(plain, names))
    for each in CONVENTIONS:
        yield row(each.name, *(plain(getattr(each.names, name)) for name in names))
    yield ""
    yield "## Where this was read, and what else is special"
    yield from head("convention", "framework", "source", "note")
    for each in CONVENTIONS:
        yield row(each.name, plain(each.framework), plain(each.source), plain(each.note))
    yield ""
    yield RENEWED


@pytest.mark.parametrize(
    ("name", "page"), [("rules", rules_page), ("conventions", conventions_page)]
)
def test_the_list_is_what_the_registry_holds(name, page, request):
    path = REPOSITORY / "examples" / name / "README.md"
    text = "\n".join([*page(), ""])
    if request.config.getoption("--update"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), RENEWED


def test_each_link_leads_to_a_heading():
    text = "\n".join(rules_page())
    headings = {
        heading.lower().replace(" ", "-")
        for heading in re.findall("^### (.*)$", text, re.MULTILINE)
    }
    links = re.findall(r"\]\(#(.*?)\)", text)
    assert len(links) == len(RULES)
    assert set(links) == headings


def test_every_thread_is_a_link():
    threads = [thread for rule in RULES for thread in rule.seen]
    assert all(THREAD.fullmatch(thread) for thread in threads)
    assert "\n".join(rules_page()).count("](https://github.com/") == len(threads)


def test_markdown_sees_nothing_but_text():
    assert plain("a*b|c_d <e>") == r"a\*b\|c\_d \<e\>"
    assert plain(None) == "-"
