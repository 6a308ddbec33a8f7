"""`bncli identify` through the command line: keys, goldens, refusals, and no need of torch."""

from __future__ import annotations

import numpy as np
import pytest

from tests.commands.conftest import refusals
from tests.commands.identify.samples import KEYS


def test_json_keeps_its_promise(run, layer):
    result = run("identify", "x.npy", "y.npy", "--state", "bn.pt", "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    facts = result.report["facts"]
    assert facts["confident"] is True
    assert facts["best"].startswith(
        "y.npy was computed in eval mode with eps 1e-3 (largest difference "
    )
    rows = result.report["tables"]["hypotheses"]
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        assert set(row) >= KEYS
    first = rows[0]
    assert (first["mode"], first["ddof"], first["eps"]) == ("eval", None, 1e-3)
    assert (first["variant"], first["explains"]) == ("", True)
    assert [item["code"] for item in result.report["findings"]] == ["BN904"]
    assert run("identify", "x.npy", "y.npy", "--state", "bn.pt", "--fail-on", "warning").code == 1


@pytest.mark.parametrize(
    ("form", "suffix"), [("table", ".txt"), ("json", ".json"), ("csv", ".csv"), ("markdown", ".md")]
)
def test_golden(run, repository, monkeypatch, golden, form, suffix):
    monkeypatch.chdir(repository)
    result = run(
        "identify", "examples/debugging/x.npy", "examples/debugging/keras.npy",
        "--state", "examples/debugging/bn.npz", "-f", form,
    )  # fmt: skip
    assert (result.code, result.stderr) == (0, "")
    golden(f"identify{suffix}", result.stdout)
    assert ("eps 1e-3" if form in ("table", "markdown") else "0.001") in result.stdout


REFUSALS = refusals("identify")


@pytest.mark.parametrize("arguments", REFUSALS)
def test_refusal_is_one_exact_sentence_and_exit_code_2(run, layer, save, arguments):
    save("w4.npy", np.ones(4))
    save("w5.npy", np.ones(5))
    save("v3.npy", np.ones(3))
    save("c3.npy", np.ones(3, np.complex64))
    save("one.npy", np.ones((1, 3), np.float32))
    save("short.npy", np.ones((8, 3, 5), np.float32))
    save("int.npy", np.ones((8, 3, 4), np.int64))
    code, stdout, stderr = run("identify", *arguments.split())
    assert (code, stdout) == (2, "")
    assert stderr == f"bncli: {REFUSALS[arguments]}\n"
