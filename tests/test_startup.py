"""What is imported when: start-up stays short, and torch is needed for a comparison alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from bncli.cli import build_app
from tests.calls import NAMES

HEAVY = ("numpy", "torch", "rich", "pydantic", "asyncio", "matplotlib", "jinja2")

PROBE = """
import sys
hidden = sys.argv.pop(1)
for name in filter(None, hidden.split(",")):
    sys.modules[name] = None
if sys.argv[1] == "import":
    __import__(sys.argv[2])
    code = 0
else:
    from bncli.cli import main
    code = main(sys.argv[1:])
wanted = {names!r}
print("IMPORTED", *(n for n in wanted if sys.modules.get(n) is not None), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def imported(run_process):
    """Which of HEAVY a call of bncli imports, in a process of its own."""

    def imported(*arguments: object, hidden: str = ""):
        probe = PROBE.replace("{names!r}", repr(HEAVY))
        result = run_process(hidden, *arguments, python=["-c", probe])
        said, _, names = result.stderr.rpartition("IMPORTED")
        assert said == "", said
        return result, set(names.split())

    return imported


@pytest.fixture
def x(save):
    return save("x.npy", np.random.default_rng(0).normal(1, 2, (8, 3, 5)).astype(np.float32))


def test_the_probe_sees_what_is_imported(imported):
    for name in ("torch", "rich"):
        _, names = imported("import", name)
        assert name in names


def test_importing_bncli_imports_nothing_heavy(imported):
    for module in ("bncli", "bncli.cli"):
        _, names = imported("import", module)
        assert names == set()


def test_version_imports_nothing_heavy(imported):
    result, names = imported("--version")
    assert result.code == 0
    assert names == set()


def test_a_call_mounts_what_it_names():
    def mounted(*arguments: str) -> list[str | None]:
        return [command.name for command in build_app(arguments).registered_commands]

    assert mounted("compute", "x.npy") == ["compute"]
    assert mounted("--version") == mounted("--help") == mounted("-h") == []
    every = mounted()
    assert {"compute", "inspect-checkpoint", "schema"} <= set(every)
    assert mounted("bogus") == every


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("schema",)])
def test_settings_and_rules_are_read_for_a_report_alone(run_process, save, arguments):
    names = (
        "tomllib",
        "tomli",
        "bncli.gate.settings",
        "bncli.gate.baseline",
        "bncli.rulebook.batch",
    )
    probe = PROBE.replace("{names!r}", repr(names))

    def seen(*arguments: str) -> set[str]:
        result = run_process("", *arguments, python=["-c", probe])
        assert result.code == 0
        return set(result.stderr.rpartition("IMPORTED")[2].split())

    assert seen(*arguments) == set()
    save("x.npy", np.zeros((8, 2), np.float32))
    assert "bncli.gate.settings" in seen("compute", "x.npy", "-q")  # which the probe can see
    assert not seen("compute", "x.npy", "-q") & {"tomllib", "tomli", "bncli.gate.baseline"}


@pytest.mark.parametrize("arguments", [("--help",), *((name, "--help") for name in NAMES)])
def test_help_imports_nothing_heavy(imported, arguments):
    result, names = imported(*arguments)
    assert (result.code, names) == (0, set())


@pytest.mark.parametrize("arguments", [("rules",), ("rules", "BN203")])
def test_rules_import_no_numbers(imported, arguments):
    result, names = imported(*arguments)
    assert (result.code, names) == (0, {"rich"})


@pytest.mark.parametrize("arguments", [("compute", "x.npy", "--bogus"), ("bogus",)])
def test_a_wrong_call_imports_nothing_heavy(run_process, arguments):
    probe = PROBE.replace("{names!r}", repr(HEAVY))
    result = run_process("", *arguments, python=["-c", probe])
    assert result.code == 2
    assert set(result.stderr.rpartition("IMPORTED")[2].split()) == set()


@pytest.mark.parametrize("form", ["json", "csv", "markdown"])
def test_a_machine_format_imports_neither_torch_nor_rich(imported, x, form):
    result, names = imported("compute", x, "-f", form)
    assert result.code == 0
    assert names == {"numpy"}


def test_a_table_imports_no_torch(imported, x):
    result, names = imported("compute", x)
    assert result.code == 0
    assert names == {"numpy", "rich"}


def test_a_page_imports_what_draws_it_when_it_is_drawn(imported, x):
    result, names = imported("compute", x, "-f", "html")
    assert result.code == 0
    assert names == {"numpy", "matplotlib", "jinja2"}
    result, names = imported("compute", x, "-f", "html", "-q")
    assert (result.code, names) == (0, {"numpy"})


def test_files_of_torch_are_read_and_written_without_it(imported, save, folder):
    import torch

    tensor = torch.arange(24.0).reshape(8, 3).bfloat16()
    state = torch.nn.BatchNorm1d(3).state_dict()
    save("ck.pt", {f"bn.{key}": value for key, value in state.items()})
    result, names = imported(
        "compute", save("x.pt", tensor), "--state", "ck.pt::bn", "--save-output", "y.pt",
        "-f", "json", hidden="torch",
    )  # fmt: skip
    assert result.code == 0
    assert names == {"numpy"}
    assert torch.load(folder / "y.pt", weights_only=True).dtype == torch.bfloat16


MODULES = """
import sys
if sys.argv[1] == "import":
    [__import__(name) for name in sys.argv[2:]]
else:
    from bncli.cli import main
    main(sys.argv[1:])
print("MODULES", *sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("call", "floor", "own", "others"),
    [
        ("--version", "typer", 24, 4),
        ("compute x.npy -f json", "numpy typer", 78, 10),
        ("inspect-checkpoint net.pt -f json", "numpy typer", 98, 17),
        ("rules", "rich.console rich.table typer", 95, 6),
    ],
)
def test_what_start_up_imports_does_not_grow(run_process, save, x, call, floor, own, others):
    """Each module of bncli or Python takes half a millisecond of every call, a package far more.

    What is new is imported where it is used, or counted here. A few more are let pass, as Python
    and Typer have a little more or less from release to release.
    """
    import torch

    save("net.pt", torch.nn.BatchNorm1d(2).state_dict())

    def imported(*arguments: str) -> set[str]:
        result = run_process(*arguments, python=["-c", MODULES])
        said, _, names = result.stderr.rpartition("MODULES")
        assert said == "", said
        return set(names.split())

    more = imported(*call.split()) - imported("import", *floor.split())
    packages = {name.partition(".")[0] for name in more} - sys.stdlib_module_names
    assert packages <= {"bncli", "typer"}
    of_bncli = sorted(name for name in more if name.partition(".")[0] == "bncli")
    assert len(of_bncli) <= own + 6, of_bncli
    assert len(more) - len(of_bncli) <= others + 8, sorted(more.difference(of_bncli))


def test_without_rich_the_machine_formats_work(imported, x):
    result, _ = imported("compute", x, "-f", "json", hidden="rich,torch")
    assert result.code == 0
