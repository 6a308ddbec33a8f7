"""The tests of a module are where one looks: those of bncli/a/b.py in tests/a/test_b.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

REGISTRIES = ("backends", "commands", "loaders", "renderers", "rulebook")
ELSEWHERE = {
    "bncli/loaders/registry.py": "tests/loaders/test_interface.py",
    "bncli/rulebook/registry.py": "tests/rulebook/test_interface.py",
    "bncli/rulebook/batch_rules.py": "tests/rulebook/test_batch.py",  # the rules that are judged
    "bncli/loaders/pickle_records.py": "tests/loaders/test_pickle_machine.py",  # what it makes
    **{f"bncli/{name}/__init__.py": f"tests/{name}/test_interface.py" for name in REGISTRIES},
}
"""Modules that are tested in the file of another."""

MODULES = sorted(path.relative_to(REPOSITORY) for path in (REPOSITORY / "bncli").rglob("*.py"))


def has_code(module: Path) -> bool:
    """Whether a module does something: a file of imports and a docstring needs no test."""
    return "def " in (REPOSITORY / module).read_text(encoding="utf-8")


def home_of(module: Path) -> Path:
    """Where the tests of a module are looked for."""
    if module.as_posix() in ELSEWHERE:
        return Path(ELSEWHERE[module.as_posix()])
    folder = Path("tests", *module.parent.parts[1:])
    name = module.stem.strip("_")
    if name == "init" and module.parent.parts[1:]:
        name = module.parent.name
    return folder / f"test_{name}.py"


@pytest.mark.parametrize("module", [*filter(has_code, MODULES)], ids=Path.as_posix)
def test_a_module_has_its_tests(module):
    where = home_of(module)
    assert (REPOSITORY / where).is_file(), f"{module.as_posix()} has no {where.as_posix()}"


def test_what_is_elsewhere_is_no_more_than_that():
    for module, where in ELSEWHERE.items():
        assert Path(module) in MODULES, f"{module} was removed: leave it out of ELSEWHERE"
        assert (REPOSITORY / where).is_file()
        own = home_of(Path(module).with_name("x.py")).with_name(f"test_{Path(module).stem}.py")
        assert not (REPOSITORY / own).is_file(), f"{own} is where one looks for {module}"
