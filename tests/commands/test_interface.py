"""Every command takes every format and every flag of its output, for it knows none of them."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from bncli.commands import COMMANDS, DOCUMENTS, Entry
from bncli.renderers import SUFFIXES, Format
from bncli.report import Severity
from tests.calls import CALLS, NAMES
from tests.conftest import schema
from tests.files.test_file_bytes import DAMAGED
from tests.files.test_reading import CALLS as READING
from tests.renderers.html.parsed import every, parsed
from tests.without_torch import RUNS

# ---------------------------------------------------------------------------- the registry


def forgotten(
    commands: Mapping[str, Entry],
    documents: Collection[str],
    package: Path,
    tests: Path,
    guides: Mapping[str, str],
    pieces: Mapping[str, Collection[str]],
) -> Iterator[str]:
    """What a command lacks, in words; `pieces` are places, and the commands that each of them has.

    `commands` and `documents` are the lists; `tests` holds the tests and the goldens, and `guides`
    the text of the guides to which README.md leads for each command.
    """
    modules = {path.stem: path for path in package.glob("[!_]*.py")}
    modules |= {path.parent.name: path for path in package.glob("*/command.py")}
    for name in sorted(modules.keys() - {*commands, *documents}):
        yield f"{modules[name].relative_to(package.parent)} is in no list of commands/__init__.py"
    for name in (*commands, *documents):
        typed = name.replace("_", "-")
        if name not in modules:
            yield f"{name} is listed, and there is no commands/{name}.py and no {name}/command.py"
            continue
        functions = {
            item.name
            for item in ast.parse(modules[name].read_text(encoding="utf-8")).body
            if isinstance(item, ast.FunctionDef)
        }
        if name not in functions:
            yield f"{modules[name].relative_to(package.parent)} has no function {name}"
        if name in documents:
            continue
        if f"\n$ bncli {typed} " not in guides.get(typed, ""):
            yield f"README.md leads to no guide that runs {typed}"
        if not {f"test_{name}.py", name} & {path.name for path in tests.iterdir()}:
            yield f"there is no tests/commands/test_{name}.py, and no folder {name}"
        for suffix in ("txt", "json", "csv", "md"):
            if not (tests / "goldens" / f"{name}.{suffix}").is_file():
                yield f"tests/commands/goldens has no {name}.{suffix}: a test makes it by --update"
        for place, named in pieces.items():
            if typed not in named and (commands[name].reads or "tests/files" not in place):
                yield f"{place} has nothing of {typed}"


ROW = re.compile(r"\| `bncli (\S+)[^|]*` \| \[[^]]*\]\(([^)]*)\) \|")
"""A command in README.md's table of symptoms, and its guide, which tests/test_docs.py executes."""


def guides_of(repository: Path) -> dict[str, str]:
    """For each command in README.md's table, the guides to which its rows lead."""
    guides: dict[str, str] = {}
    for command, path in ROW.findall((repository / "README.md").read_text("utf-8")):
        guides[command] = guides.get(command, "") + (repository / path).read_text("utf-8")
    return guides


def test_no_piece_of_a_command_is_forgotten(repository):
    pieces = {
        "bncli/report.schema.json": schema().schema["$defs"],
        "tests/calls.py": CALLS,
        "tests/without_torch.py": {line.split()[0] for line, _ in RUNS},
        "tests/files/test_reading.py": {call[0] for call in READING},
        "tests/files/test_file_bytes.py": {call[0] for call in DAMAGED},
    }
    package = repository / "bncli" / "commands"
    lists = COMMANDS, DOCUMENTS
    lack = list(forgotten(*lists, package, Path(__file__).parent, guides_of(repository), pieces))
    assert not lack, "\n".join(lack)


def test_each_forgotten_piece_is_named(tmp_path):
    package, tests = tmp_path / "commands", tmp_path / "tests"
    for folder in (package / "two_words", package / "_own", tests / "goldens"):
        folder.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "stray.py").write_text("def stray(): 'A sentence.'")
    (package / "two_words" / "command.py").write_text("def two_words(): pass")
    (package / "whole.py").write_text("def whole(): 'A sentence.'")
    (package / "paper.py").write_text("def other(): 'A sentence.'")
    (tests / "test_whole.py").touch()
    for suffix in ("txt", "json", "csv", "md"):
        (tests / "goldens" / f"whole.{suffix}").touch()
    pieces = {"tests/calls.py": {"whole"}, "tests/files/test_reading.py": ()}
    whole, read = COMMANDS["rules"], COMMANDS["compute"]
    lists = {"whole": whole, "two_words": read, "gone": read}, ("paper",)
    assert list(forgotten(*lists, package, tests, {"whole": "\n$ bncli whole x.npy"}, pieces)) == [
        "commands/stray.py is in no list of commands/__init__.py",
        "README.md leads to no guide that runs two-words",
        "there is no tests/commands/test_two_words.py, and no folder two_words",
        *(
            f"tests/commands/goldens has no two_words.{suffix}: a test makes it by --update"
            for suffix in ("txt", "json", "csv", "md")
        ),
        "tests/calls.py has nothing of two-words",
        "tests/files/test_reading.py has nothing of two-words",
        "gone is listed, and there is no commands/gone.py and no gone/command.py",
        "commands/paper.py has no function paper",
    ]


# ---------------------------------------------------------------------------- every command


def well_formed(form: Format, text: str, verdict: str) -> bool:
    """Whether a parser of the format takes the text, or people find the verdict in its place."""
    if form in (Format.JSON, Format.SARIF):
        return bool(json.loads(text))
    if form is Format.JUNIT:
        return bool(list(ET.fromstring(text).iter("testcase")))
    if form is Format.SVG:
        return ET.fromstring(text).get("aria-label", "").startswith("bncli ")
    if form is Format.HTML:
        heading = "".join(every(parsed(text), "h1")[0].itertext())
        return " ".join(heading.split()) == " ".join(verdict.split())
    if form is Format.CSV:
        return len({len(row) for row in csv.reader(io.StringIO(text))}) == 1
    if form is Format.CONCISE:
        *found, last = text.splitlines()
        claims = (re.search(r"(error|warning|note) BN\d{3} \S", line) for line in found)
        return all(claims) and last == verdict
    if form is Format.TABLE:  # for people: no parser, and its first line is the subject
        there = text.endswith(f"{verdict}\n") and "\n\n\n" not in text
        return there and text == f"{text.strip()}\n"
    if form is Format.GITHUB:
        return text.endswith(f": {verdict}\n")
    if form is Format.MARKDOWN:
        return verdict in text.splitlines()[2].replace("\\", "")
    pytest.fail(f"give well_formed a case for {form.value}")


def test_a_format_without_a_parser_is_named():
    with pytest.raises(pytest.fail.Exception, match="give well_formed a case for tsv"):
        well_formed(SimpleNamespace(value="tsv"), "bncli", "")


@pytest.mark.parametrize("name", NAMES)
def test_every_format(run, repository, monkeypatch, name):
    monkeypatch.chdir(repository)
    codes = set()
    verdict = run(name, *CALLS[name], "-f", "json").report["verdict"]
    for form in Format:
        result = run(name, *CALLS[name], "-f", form.value)
        codes.add(result.code)
        assert result.stderr == ""
        assert well_formed(form, result.stdout, verdict), f"no parser of {form.value} takes it"
        if form is Format.JSON:
            found = [(item["severity"], item["code"]) for item in result.report["findings"]]
            assert found == sorted(found, key=lambda pair: (-Severity(pair[0]).rank, pair[1]))
    assert len(codes) == 1
    assert codes <= {0, 1}


@pytest.mark.parametrize("name", NAMES)
def test_csv_carries_the_main_table(run, repository, monkeypatch, name):
    monkeypatch.chdir(repository)
    tables = run(name, *CALLS[name], "-f", "json").report["tables"]
    definition = schema().schema["$defs"][name]
    branches = definition.get("anyOf", [definition])
    described = [branch["properties"]["tables"] for branch in branches]
    main = next(iter(tables))
    assert main in {next(iter(each.get("required", each["properties"]))) for each in described}
    text = run(name, *CALLS[name], "-f", "csv").stdout
    assert next(csv.reader(io.StringIO(text))) == list(tables[main][0])


@pytest.mark.parametrize("name", NAMES)
def test_the_flags_of_the_output(run, repository, monkeypatch, tmp_path, name):
    monkeypatch.chdir(repository)
    paths = [tmp_path / f"r{suffix}" for suffix in SUFFIXES]
    flags = [part for path in paths for part in ("-o", path)]
    baseline = tmp_path / "known.json"
    result = run(name, *CALLS[name], "-q", *flags, "--baseline", baseline, "--update-baseline")
    assert tuple(result) == (0, "", "")
    assert all(path.stat().st_size for path in paths)
    assert run(name, *CALLS[name], "-q", "--baseline", baseline, "--fail-on", "info").code == 0
    assert run(name, *CALLS[name], "-q", "--ignore", "BN", "--fail-on", "info").code == 0
