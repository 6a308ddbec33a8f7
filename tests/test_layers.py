"""The contracts in pyproject.toml: they hold, and an import that they forbid is refused."""

from __future__ import annotations

from copy import deepcopy

import pytest

from bncli.commands import COMMANDS
from tests.conftest import REPOSITORY

grimp = pytest.importorskip("grimp")
pytest.importorskip("importlinter")


@pytest.fixture(scope="module")
def graph():
    """Which module of bncli imports which."""
    return grimp.build_graph("bncli", cache_dir=None)


@pytest.fixture(scope="module")
def broken():
    """The contracts that a graph breaks, by their type."""
    from importlinter.contracts.independence import IndependenceContract
    from importlinter.contracts.layers import LayersContract

    try:
        import tomllib
    except ImportError:  # before Python 3.11
        import tomli as tomllib

    kinds = {"independence": IndependenceContract, "layers": LayersContract}
    text = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    written = tomllib.loads(text)["tool"]["importlinter"]["contracts"]
    options = [
        {key: str(value) if isinstance(value, bool) else value for key, value in each.items()}
        for each in written
    ]

    def broken(graph) -> list[str]:
        found = []
        for each in options:
            contract = kinds[each["type"]](each["name"], {"root_packages": ["bncli"]}, each)
            if not contract.check(graph, verbose=False).kept:
                found.append(each["type"])
        return found

    return broken


def test_they_hold(graph, broken):
    assert broken(deepcopy(graph)) == []


def module_of(name: str, graph) -> str:
    """The module with a command's function."""
    own = f"bncli.commands.{name}"
    return f"{own}.command" if f"{own}.command" in graph.modules else own


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_imports_another_is_refused(graph, broken, name):
    """Each of them, so that the contract names all; the next one is imported."""
    every = list(COMMANDS)
    other = every[(every.index(name) + 1) % len(every)]
    planted = deepcopy(graph)
    planted.add_import(
        importer=module_of(name, graph), imported=module_of(other, graph),
        line_number=1, line_contents=f"from bncli.commands import {other}",
    )  # fmt: skip
    assert broken(planted) == ["independence"]


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("bncli.verify.meter", "bncli.renderers.json"),  # of one floor, and apart
        ("bncli.model", "bncli.moments.engine"),
        ("bncli.rulebook.batch", "bncli.sections.findings"),
        ("bncli.arguments.layer", "bncli.commands.compute"),
        ("bncli.sections.tables", "bncli.cli.delivery"),
    ],
)
def test_an_import_of_a_floor_above_is_refused(graph, broken, importer, imported):
    planted = deepcopy(graph)
    planted.add_import(importer=importer, imported=imported)
    assert "layers" in broken(planted)


def test_a_room_without_a_floor_is_refused(graph, broken):
    planted = deepcopy(graph)
    planted.add_module("bncli.attic")
    assert broken(planted) == ["layers"]
