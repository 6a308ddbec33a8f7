"""The types of the Python interface are those of the flags, and a type checker takes them."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

import bncli

from .stub import stub

PROGRAM = """
from __future__ import annotations

from pathlib import Path

import numpy as np

import bncli
from bncli.api.report import Report


def gate(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bool:
    report: Report = bncli.compute(x, Path("y.npy"), eps=1e-3, momentum=None, channel=[0, 3])
    names: list[object] = list(report.table("channels")["mean"])
    report.save("r.html")
    print([finding.code for finding in report.findings], names, report.to_dict()["facts"])
    bncli.inspect_checkpoint("a.pt", eps={"backbone.*": 1e-3}, fail_on="warning", sort="trouble")
    bncli.compare_checkpoints("a.pt", "b.pt", with_="c.pt", expect=["frozen:backbone.*"])
    bncli.conventions(from_="keras3")
    with bncli.capture(object(), frozen=["backbone.*"]) as stats:
        pass
    stats.diagnose(train_batch_size=8).save(Path("r.md"))
    run = bncli.capture(object(), data=["a.pt"], arg={"num_classes": 21})
    bncli.diagnose(run, try_=2)
    return report.ok and run.report.ok
"""

WRONG = {
    'bncli.compute("x.npy", eps="small")': 'Argument "eps" to "compute"',
    'bncli.compute("x.npy", epsilon=1)': 'Unexpected keyword argument "epsilon"',
    'bncli.inspect_checkpoint("a.pt", fail_on="never ever")': 'Argument "fail_on"',
    'bncli.compute("x.npy").findigs': '"Report" has no attribute "findigs"',
    "bncli.capture(1).report": '"Recorded" has no attribute "report"',
}


def test_it_is_what_the_flags_say(repository, request):
    path = repository / "bncli" / "__init__.pyi"
    if request.config.getoption("--update"):
        path.write_text(stub(), "utf-8")
    assert path.read_text("utf-8") == stub(), "pytest tests/api/test_stub.py --update renews it"


def test_every_exported_name_has_a_type(repository):
    tree = ast.parse((repository / "bncli" / "__init__.pyi").read_text("utf-8"))
    named: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            named |= {alias.asname for alias in node.names if alias.asname}
        elif isinstance(node, ast.FunctionDef):
            named.add(node.name)
        elif isinstance(node, ast.AnnAssign):
            named.add(node.target.id)
    assert set(bncli.__all__) <= named


@pytest.mark.exhaustive  # it reads all of bncli, NumPy and PyTorch, which takes a minute
def test_a_type_checker_takes_a_users_program(folder, repository):
    pytest.importorskip("mypy")
    lines = [f"{line}\n" for line in WRONG]
    (folder / "right.py").write_text(PROGRAM, "utf-8")
    (folder / "wrong.py").write_text("import bncli\n\n" + "".join(lines), "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-color-output", "right.py", "wrong.py"],
        cwd=folder, env={"MYPYPATH": str(repository), "PATH": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [line for line in said if not line.startswith("wrong.py")] == [], done.stdout
    for number, expected in enumerate(WRONG.values(), 3):
        assert any(line.startswith(f"wrong.py:{number}:") and expected in line for line in said), (
            done.stdout
        )
