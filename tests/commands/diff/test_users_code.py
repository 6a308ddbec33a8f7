"""`--against` code of the user's: what passes, what is named, and code that misbehaves."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.commands.samples import codes, random, table

NETS = """
import sys

import numpy as np
import torch
from torch import nn
from torch.nn.functional import batch_norm

print("imported")
__version__ = "1.2"


class Good(nn.BatchNorm1d):
    pass


class Biased(nn.BatchNorm1d):
    def forward(self, x):
        if self.training:
            with torch.no_grad():
                axes = (0, 2)
                self.running_mean.lerp_(x.mean(axes), self.momentum)
                self.running_var.lerp_(x.var(axes, correction=0), self.momentum)
                self.num_batches_tracked += 1
            return batch_norm(x, None, None, self.weight, self.bias, True, 0.0, self.eps)
        return super().forward(x)


class NoGrad(nn.BatchNorm1d):
    def forward(self, x):
        with torch.no_grad():
            return super().forward(x)


def outside(x, weight, bias, running_mean, running_var, training, momentum, eps):
    shape, n = (1, -1, 1), x.size // x.shape[1]
    mean, var = running_mean, running_var
    if training:
        mean, var = x.mean((0, 2)), x.var((0, 2))
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var * n / (n - 1) - running_var)
    root = np.sqrt(var) + np.float32(eps)
    return (x - mean.reshape(shape)) / root.reshape(shape)


def weighed(x, weight, bias, running_mean, running_var, training, momentum, eps):
    mean, var, shape = x.mean((0, 2)), x.var((0, 2)), (1, -1, 1)
    running_mean[:] = momentum * running_mean + (1 - momentum) * mean
    running_var[:] = momentum * running_var + (1 - momentum) * var
    return (x - mean.reshape(shape)) / np.sqrt(var + np.float32(eps)).reshape(shape)


def leaves(x, *more):
    print("leaving")
    sys.exit(0)


def raises(x, *more):
    return undefined


def half(x, *more):
    return x.astype(np.float16)


def recurses(x, *more):
    return recurses(x, *more)


def closes(x: torch.Tensor, weight, bias, running_mean, running_var, training, momentum, eps):
    sys.stdout.close()
    return batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)


value = 3
"""


@pytest.fixture
def nets(folder, save):
    (folder / "nets.py").write_text(NETS, encoding="utf-8")
    save("x.npy", random(16, 3, 5))
    return "nets.py"


@pytest.mark.parametrize("command", ["diff", "compute", "trace"])
@pytest.mark.parametrize("name", ["nets.py:Good", "torch.nn:BatchNorm1d", "nets:Good"])
def test_a_class_agrees_as_pytorch_does(run, nets, command, name):
    flags = [] if command == "diff" else ["--against", "torch"]
    expected = run(command, "x.npy", *flags, "-f", "json")
    result = run(command, "x.npy", "--against", name, "-f", "json")
    assert (result.code, codes(result)) == (0, [])
    assert set(result.stderr.split()) <= {"imported"}
    facts = result.report["facts"]
    assert facts["backend"] == name
    assert facts["backend_version"] == ("1.2" if "nets" in name else facts["backend_version"])
    own = {row["quantity"] for row in table(result, "differences")}
    torchs = {row["quantity"] for row in table(expected, "differences")}
    assert torchs - own == {"mean", "var", "invstd"}
    assert f"{name.rpartition(':')[2]} agrees in " in result.report["verdict"]


def test_a_biased_running_var_is_named(run, nets):
    result = run("diff", "x.npy", "--against", "nets.py:Biased", "--training")
    assert result.code == 1
    assert "3 of 3 values differ from Biased, by up to" in result.stdout
    assert "running_var is biased: it divides by n" in result.stdout.splitlines()[-1]
    assert "help: Multiply the batch's variance by n / (n - 1)" in result.stdout
    assert "torch" not in result.stdout.replace("torch_threads", "")


def test_eps_outside_the_root_is_named_in_both_modes(run, nets):
    result = run("diff", "x.npy", "--against", "nets.py:outside", "--eps", "1e-2", "-f", "json")
    assert result.code == 1
    causes = {item["subject"]: item["evidence"]["cause"] for item in result.report["findings"]}
    outside = "eps is outside the root"
    assert causes == {"output in training mode": outside, "output in eval mode": outside}
    assert result.report["facts"]["device"] is None


def test_gradients_that_are_missing_are_said(run, nets):
    result = run("diff", "x.npy", "--against", "nets.py:NoGrad")
    assert result.code == 0
    assert "gradients were not compared in training and eval: NoGrad's output" in " ".join(
        result.stdout.split()
    )
    for name in ("Good", "outside"):  # it has gradients; NumPy has none
        assert (
            "gradients were not" not in run("diff", "x.npy", "--against", f"{nets}:{name}").stdout
        )


def test_a_verdict_names_each_cause_once(run, nets):
    result = run("diff", "x.npy", "--against", "nets.py:weighed", "--training", "-f", "json")
    verdict = result.report["verdict"]
    assert verdict.count("momentum weighs the old value: the batch enters with 0.9") == 1
    assert verdict.count("running_var is biased: it divides by n") == 1


def test_a_cause_that_others_fit_as_well_is_said_with_them(run, nets, save):
    outside, by_var = "eps is outside the root", "the output is divided by the variance"
    one = run("diff", "x.npy", "--against", "nets.py:outside", "--eval", "-f", "json")
    (found,) = (item for item in one.report["findings"] if item["subject"] == "output")
    assert (
        f"eps is 2e-5, not the 1e-5 that was given, or {outside}, or {by_var}"
        in (found["evidence"]["cause"])
    )
    assert found["certainty"] == "likely"
    assert "compare with other running statistics" in found["hint"]
    # Small variances tell, and the same code runs in both modes.
    save("small.npy", random(16, 3, 5) * np.float32([[0.01], [0.1], [1]]))
    both = run("diff", "small.npy", "--against", "nets.py:outside", "-f", "json")
    causes = {item["subject"]: item["evidence"] for item in both.report["findings"]}
    assert causes["output in eval mode"]["cause"] == outside
    assert both.report["verdict"].endswith(f"; {outside}")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nets.py:leaves", "leaves ended the process (SystemExit: 0)."),
        ("nets.py:raises", "raises raised NameError: name 'undefined' is not defined."),
        ("nets.py:half", "half: the output is float16, but the input is float32; BatchNorm keeps"),
        ("nets.py:recurses", "recurses raised RecursionError"),
        ("nets.py:value", "nets.py:value: it is neither a class nor a function."),
        ("nets.py:Goood", "nets.py: there is no 'Goood' in it; did you mean Good?"),
        ("nets.py", "name the BatchNorm in it, such as nets.py:Good"),
        ("none.py:Good", "none.py: there is no such file"),
        ("nothing.there:Good", "there is no module 'nothing'"),
        ("pytorch", "--against pytorch: it is neither torch nor code of yours; write that as"),
        ("x.npy", "--against x.npy: it is neither torch nor code of yours"),
    ],
)
def test_what_cannot_be_compared_is_one_sentence(run, nets, name, sentence):
    result = run("diff", "x.npy", "--against", name, "-f", "json")
    assert (result.code, result.stdout) == (2, "")
    said = [line for line in result.stderr.splitlines() if line not in ("imported", "leaving")]
    assert len(said) == 1
    assert sentence in said[0]


def test_a_place_in_the_users_file_is_said(run, nets):
    result = run("compute", "x.npy", "--against", "nets.py:raises")
    assert "nets.py:" in result.stderr.splitlines()[-1].partition("raises raised")[0]


def test_what_the_code_prints_or_closes_is_not_the_reports(run_process, nets):
    result = run_process("diff", "x.npy", "--against", "nets.py:closes", "-f", "json")
    assert result.code == 0, result.stderr
    assert json.loads(result.stdout)["facts"]["backend"] == "nets.py:closes"
    assert "imported" in result.stderr


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (("compare-norms", "x.npy"), "this backend has only BatchNorm"),
        (("simulate-ema", "x.npy", "x.npy"), "no module that can be stepped through batches"),
    ],
)
def test_what_needs_more_than_batch_norm_refuses_it(run, nets, command, sentence):
    result = run(*command, "--against", "nets.py:Good")
    assert (result.code, result.stdout) == (2, "")
    assert f"--against nets.py:Good: {sentence}" in " ".join(result.stderr.split()) or (
        sentence in result.stderr
    )


def test_code_is_never_taken_from_settings(run, nets, folder):
    (folder / "pyproject.toml").write_text('[tool.bncli]\nagainst = "nets.py:Good"\n')
    result = run("diff", "x.npy")
    assert (result.code, result.stdout) == (2, "")
    assert "[tool.bncli] has no key against" in result.stderr
    assert "imported" not in result.stderr


def test_the_help_says_that_code_is_run(run):
    for command in ("diff", "compute", "trace"):
        said = " ".join(run(command, "--help").stdout.replace("│", " ").split())
        assert "which is imported and run" in said
        assert "torch|CODE" in said


def test_a_factor_widens_the_derived_tolerances_and_is_said(run, nets, save):
    plain = run("diff", "x.npy", "-f", "json")
    wide = run("diff", "x.npy", "--tolerance-factor", "3", "-f", "json")
    assert wide.report["facts"]["tolerance_factor"] == 3.0
    assert "tolerance_factor" not in plain.report["facts"]
    for one, other in zip(table(plain, "differences"), table(wide, "differences"), strict=True):
        assert other["atol"] == pytest.approx(3 * one["atol"])
        assert other["rtol"] == pytest.approx(3 * one["rtol"])
    assert (
        "at 3 times the tolerance"
        in run("compute", "x.npy", "--against", "torch", "--tolerance-factor", "3").stdout
    )
    for flags, words in (
        (("--rtol", 0, "--atol", 0), "which --rtol and --atol replace"),
        (("y.npy",), "--tolerance-factor does not apply to a comparison of two stored tensors"),
    ):
        save("y.npy", random(16, 3, 5))
        result = run("diff", "x.npy", *flags, "--tolerance-factor", "3")
        assert result.code == 2
        assert words in result.stderr


def test_an_input_of_half_precision_goes_through(run, nets):
    for dtype in ("float16", "bfloat16", "float64"):
        result = run("diff", "x.npy", "--against", "nets.py:Good", "--dtype", dtype, "-f", "json")
        assert (result.code, codes(result)) == (0, [])


def test_numbers_do_not_depend_on_the_codes_random_state(run, nets, folder):
    seeds = NETS + "\nnp.random.seed(1)\ntorch.manual_seed(1)\n"
    (folder / "seeds.py").write_text(seeds, encoding="utf-8")
    one, other = (
        table(run("diff", "x.npy", "--against", name, "-f", "json"), "differences")
        for name in ("nets.py:Good", "seeds.py:Good")
    )
    assert one == other
    assert np.isfinite([row["max_abs_diff"] for row in one]).all()
