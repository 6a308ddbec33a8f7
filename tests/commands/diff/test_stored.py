"""`bncli diff ACTUAL EXPECTED`: two stored tensors, and files of them by name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.commands.samples import codes, random, table


@pytest.mark.parametrize("dtypes", [("float32", "float32"), ("float16", "float32"),
                                    ("bfloat16", "float64"), ("float64", "float64"),
                                    ("int64", "int64")])  # fmt: skip
@pytest.mark.parametrize("factor", [0.99, 1.01])
def test_the_verdict_is_that_of_assert_close(run, save, dtypes, factor):
    """On either side of the default tolerance of the looser dtype."""
    actual, expected = (torch.full((2, 3), 4, dtype=getattr(torch, name)) for name in dtypes)
    rtol, atol = torch.testing._comparison.default_tolerances(actual, expected)
    wide = expected.double() + factor * (atol + rtol * 4)
    if dtypes == ("int64", "int64"):
        wide = expected + (factor > 1)
    elif dtypes[0] in ("float16", "bfloat16"):
        expected, wide = wide.to(expected.dtype), actual
    wide = wide if dtypes[0] in ("float16", "bfloat16") else wide.to(actual.dtype)
    try:
        torch.testing.assert_close(wide, expected, check_dtype=False)
    except AssertionError:
        code = 1
    else:
        code = 0
    result = run("diff", save("a.pt", wide), save("b.pt", expected), "-f", "json")
    assert result.code == code
    (row,) = table(result, "differences")
    assert (row["rtol"], row["atol"]) == (rtol, atol)


def test_the_least_atol_that_passes_passes(run, save):
    a, b = save("a.npy", random(5, 3)), save("b.npy", random(5, 3, seed=1))
    for rtol in (0, 1e-3):
        (row,) = table(run("diff", a, b, "--rtol", rtol, "--atol", 0, "-f", "json"), "differences")
        least = row["passing_atol"]
        assert run("diff", a, b, "--rtol", rtol, "--atol", least * (1 + 1e-12), "-q").code == 0
        assert run("diff", a, b, "--rtol", rtol, "--atol", least * (1 - 1e-9), "-q").code == 1


def test_nan_is_a_mismatch_unless_it_is_asked_for(run, save):
    x = random(4, 3)
    x[2, 1] = np.nan
    save("x.npy", x)
    assert run("diff", "x.npy", "x.npy", "-q").code == 1
    assert run("diff", "x.npy", "x.npy", "--equal-nan", "-q").code == 0
    result = run("diff", "x.npy", "x.npy", "-f", "json")
    first = table(result, "channels")[0]
    assert (first["channel"], first["mismatched"]) == (1, 1)
    x[2, 1] = np.inf
    save("x.npy", x)
    assert run("diff", "x.npy", "x.npy", "-q").code == 0


def test_nothing_compared_is_exit_3(run, save):
    empty = save("e.npy", np.zeros((0, 3), np.float32))
    result = run("diff", empty, empty, "-f", "json")
    assert (result.code, result.report["tables"]) == (3, {"differences": [], "channels": []})
    save("a.npz", x=random(2, 3), y=random(2, 3))
    save("b.npz", z=random(2, 3), w=random(2, 3))
    result = run("diff", "a.npz", "b.npz", "-f", "json")
    assert (result.code, result.report["tables"]) == (3, {"differences": [], "channels": []})


def test_two_files_are_compared_by_name(run, save):
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    save("a.pt", module.state_dict())
    with torch.no_grad():
        module[1].running_var[2] += 0.5
        module[1].num_batches_tracked += 1
    save("b.pt", {"state_dict": module.state_dict()})
    result = run("diff", "a.pt", "b.pt::state_dict", "-f", "json")
    assert result.code == 1
    rows = {row["quantity"]: row for row in table(result, "differences")}
    assert set(rows) == set(module.state_dict())
    differing = {name for name, row in rows.items() if not row["passed"]}
    assert differing == {"1.running_var", "1.num_batches_tracked"}
    worst = next(r for r in table(result, "channels") if r["quantity"] == "1.running_var")
    assert (worst["channel"], worst["mismatched"]) == (2, 1)
    assert codes(result) == ["BN901", "BN901"]


def test_a_file_of_one_tensor_is_a_set_of_one(run, save):
    save("a.npz", x=random(4, 3))
    save("b.npz", x=random(4, 3), y=random(4, 3))
    result = run("diff", "a.npz", "b.npz", "-f", "json")
    assert [row["quantity"] for row in table(result, "differences")] == ["x"]
    assert codes(result) == ["BN903"]
    assert run("diff", "a.npz", "b.npz::y", "-q").code == 0


def test_what_has_no_partner_is_said(run, save):
    save("a.npz", same=random(4, 3), wide=random(4, 3), mine=random(2, 2))
    save("b.npz", same=random(4, 3), wide=random(1, 3), theirs=random(2, 2))
    result = run("diff", "a.npz", "b.npz", "-f", "json")
    assert result.code == 1
    assert [row["quantity"] for row in table(result, "differences")] == ["same"]
    said = {item["subject"]: item["message"] for item in result.report["findings"]}
    assert said == {
        "mine": "only in a.npz",
        "theirs": "only in b.npz",
        "wide": "of different shapes, [4, 3] against [1, 3]",
    }


def test_many_differing_tensors_share_findings(run, save):
    save("a.npz", **{f"t{i}": random(2, 3) for i in range(40)})
    save("b.npz", **{f"t{i}": random(2, 3) + 1 for i in range(40)})
    result = run("diff", "a.npz", "b.npz", "-f", "json")
    assert len(result.report["findings"]) == 21
    assert result.report["findings"][-1]["message"] == "20 more tensors differ from b.npz"


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 4), (2, 3, 4, 5, 6, 2)])
def test_any_rank(run, save, shape):
    x = np.asarray(random(*shape) if shape else np.float32(3.0))
    result = run("diff", save("a.npy", x), save("b.npy", x + np.float32(1)), "-f", "json")
    assert result.code == 1
    assert len(table(result, "channels")) == (shape[1] if len(shape) > 1 else x.size)


def test_the_channel_axis(run, save):
    x = random(2, 3, 4)
    y = x.copy()
    y[..., 2] += 1
    save("x.npy", x)
    save("y.npy", y)
    rows = table(run("diff", "x.npy", "y.npy", "--channel-axis", -1, "-f", "json"), "channels")
    assert [row["mismatched"] for row in rows] == [6, 0, 0, 0]
    assert rows[0]["channel"] == 2


def test_float8_bool_and_foreign_layouts(run, save):
    x = torch.randn(4, 6).to(torch.float8_e4m3fn)
    assert run("diff", save("a.pt", x), save("b.pt", x), "-q").code == 0
    y = torch.randn(4, 6, 5, 3)
    assert run("diff", save("a.pt", y > 0), save("b.pt", y <= 0), "-q").code == 1
    save("a.pt", y.contiguous(memory_format=torch.channels_last))
    assert run("diff", "a.pt", save("b.npy", np.asfortranarray(y.numpy())), "-q").code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_memory_does_not_grow_with_the_file(folder):
    """Two files of 128 MB each are compared in less than that."""
    for name in ("a.npy", "b.npy"):
        values = np.lib.format.open_memmap(name, "w+", np.float32, (32, 16, 65536))
        del values
    # Not ru_maxrss, which begins with that of the process that started this one.
    probe = (
        "from pathlib import Path\nfrom bncli.cli import main\n"
        "code = main(['diff', 'a.npy', 'b.npy', '-q'])\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(code, int(status.partition('VmHWM:')[2].split()[0]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    code, megabytes = map(int, done.stdout.split())
    assert code == 0
    assert megabytes < 100


def test_a_flat_tensor_is_compared_as_a_whole(run, save):
    """A million values of one axis are no million channels."""
    x = random(1_000_000)
    y = x.copy()
    y[999_999] += 1
    result = run("diff", save("x.npy", x), save("y.npy", y), "-f", "json")
    assert result.code == 1
    (row,) = table(result, "differences")
    assert (row["index"], row["mismatched"], row["total"]) == ([999_999], 1, 1_000_000)
    assert table(result, "channels") == []
    shown = run("diff", "x.npy", "y.npy", "--width", "120", "-v").stdout
    assert "Not channel by channel, above 16384 of them: values." in shown


def test_of_many_differing_tensors_the_worst_keep_their_channels(run, save, monkeypatch):
    monkeypatch.setattr("bncli.verify.stored_pair.MOST_CHANNELS", 8)
    actual = {f"w{n}": random(2, 4) for n in range(5)}
    expected = {name: values + int(name[1:]) for name, values in actual.items()}
    result = run("diff", save("a.npz", **actual), save("b.npz", **expected), "-f", "json")
    assert {row["quantity"] for row in table(result, "channels")} == {"w4", "w3"}
    assert [row["passed"] for row in table(result, "differences")].count(False) == 4


def test_close_nan_does_not_hide_the_least_atol(run, save):
    x = random(4, 2)
    x[0, 0] = np.nan
    y = x.copy()
    y[2, 0] += 1
    result = run("diff", save("x.npy", x), save("y.npy", y), "--equal-nan", "-f", "json")
    (row,) = table(result, "differences")
    assert row["passing_atol"] == pytest.approx(1, abs=1e-5)


def test_a_difference_is_explained_where_the_input_is_known(run, save):
    x = random(32, 3)
    save("x.npy", x)
    module = torch.nn.BatchNorm1d(3)
    for eps in (1e-5, 0.1):
        module.eps = eps
        save(f"{eps}.npy", module(torch.from_numpy(x)).detach().numpy())
    result = run("diff", "1e-05.npy", "0.1.npy", "--input", "x.npy", "-f", "json")
    (finding,) = result.report["findings"]
    assert finding["detail"].endswith(
        "Cause: 0.1.npy was computed in training mode with eps 0.1 (fitted eps), and "
        "1e-05.npy in training mode with eps 1e-5."
    )
    assert finding["hint"] == "Set eps=0.1 where 1e-05.npy is made."
    same = run("diff", "1e-05.npy", "1e-05.npy", "--input", "x.npy", "-f", "json")
    assert (same.code, same.report["findings"]) == (0, [])


def test_a_quantised_tensor_is_refused_in_a_sentence(run, save):
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8)
    save("q.pt", {"a": quantised, "b": torch.ones(4, 3)})
    save("p.pt", {"a": torch.ones(4, 3), "b": torch.ones(4, 3)})
    for pair in (("q.pt::a", "p.pt::a"), ("p.pt::a", "q.pt::a"), ("q.pt::a", "q.pt::a")):
        code, stdout, stderr = run("diff", *pair)
        assert (code, stdout) == (2, "")
        assert "cannot be read" in stderr
        assert stderr.count("\n") == 1
    assert run("diff", "q.pt", "p.pt").code == 1


def test_two_checkpoints_that_differ_are_better_compared_otherwise(run, folder):
    layer = torch.nn.BatchNorm1d(3)
    torch.save(layer.state_dict(), "a b.pt")
    torch.save(layer.state_dict(), "same.pt")
    layer(torch.randn(8, 3))
    torch.save(layer.state_dict(), "b.pt")
    said = "bncli compare-checkpoints 'a b.pt' b.pt says what happened to each BatchNorm layer"
    assert said in run("diff", "a b.pt", "b.pt", "-f", "json").report["remarks"]
    assert "compare-checkpoints" not in run("diff", "a b.pt", "same.pt").stdout
    assert "compare-checkpoints" not in run("diff", "a b.pt::bias", "b.pt::running_mean").stdout
    torch.save({"x": torch.ones(3), "weight": torch.ones(3)}, "c.pt")
    assert "compare-checkpoints" not in run("diff", "a b.pt", "c.pt").stdout
