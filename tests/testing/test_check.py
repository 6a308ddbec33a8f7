"""`check_batchnorm`: what is right passes, what cannot be judged is said, what is wrong raises."""

from __future__ import annotations

import subprocess
import sys
from unittest import SkipTest

import numpy as np
import pytest
import torch

from bncli.errors import ModelError, UsageError
from bncli.testing import BatchNormMismatch, batchnorm_configurations, check_batchnorm
from tests.testing.implementations import Honest, Rsqrt, numpy_batchnorm, pure_python
from tests.testing.planted import PLANTED

ALL = {str(each): each for each in batchnorm_configurations()}


@pytest.mark.parametrize(
    ("module", "skipped"),
    [(torch.nn.BatchNorm1d, 9), (torch.nn.BatchNorm2d, 10), (torch.nn.BatchNorm3d, 10)],
)
def test_pytorchs_own_passes(module, skipped):
    summary = check_batchnorm(module)
    assert len(summary.skipped) == skipped
    assert summary.judged + skipped == len(ALL)
    assert all("is refused (ValueError: expected" in why or "channels_last" in why
               for why in summary.skipped.values())  # fmt: skip
    assert summary.without == {}
    assert summary.most_used[0] <= 1


def test_pytorchs_function_passes_everywhere():
    summary = check_batchnorm(torch.nn.functional.batch_norm)
    assert (summary.judged, dict(summary.skipped)) == (len(ALL), {})
    assert [*summary.without] == ["num_batches_tracked"]


@pytest.mark.parametrize("honest", [Honest, Rsqrt, numpy_batchnorm, pure_python])
def test_what_others_write_rightly_passes(honest):
    summary = check_batchnorm(honest)
    assert (summary.judged, dict(summary.skipped)) == (len(ALL), {})
    gradients = {"grad_input", "grad_weight", "grad_bias"}
    assert gradients.isdisjoint(summary.without) == isinstance(honest, type)


def test_a_correct_one_of_few_digits_passes_with_a_factor():
    """Half of float32's digits: nothing but precision is named, and a factor lets it pass."""

    def rough(x: torch.Tensor, running_mean, running_var, weight, bias, training, momentum, eps):
        y = torch.nn.functional.batch_norm(
            x, running_mean, running_var, weight, bias, training, momentum, eps
        )
        return torch.where(y.isfinite(), y.half().to(y.dtype), y) if y.dtype == torch.float32 else y

    some = [each for each in ALL.values() if each.dtype == "float32" and not each.is_extreme]
    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(rough, configurations=some)
    assert caught.value.causes == (
        "precision is lost: values have only 11 bits, as float16 and TF32",
    )
    summary = check_batchnorm(rough, configurations=some, tolerance_factor=2**13)
    assert summary.tolerance_factor == 2**13
    assert "(times 8192)" in str(summary)


def test_one_configuration_at_a_time():
    """As `pytest.mark.parametrize` has it: the same that fail together fail alone."""
    wrong = PLANTED["FixedEps"][0]
    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(wrong)
    failing = {each.step.configuration.name for each in caught.value.failures}
    for each in [*ALL.values()][::9]:
        if each.name in failing:
            with pytest.raises(BatchNormMismatch) as caught:
                check_batchnorm(wrong, configurations=[each])
            assert len(caught.value.causes) + len(caught.value.unexplained) > 0
        else:
            assert check_batchnorm(wrong, configurations=each).judged == 1


def test_what_cannot_be_expressed_is_skipped_with_its_reason():
    with pytest.raises(SkipTest, match=r"5-D input is refused \(ValueError: expected 4D input"):
        check_batchnorm(torch.nn.BatchNorm2d, configurations=[ALL["train-5d"]])
    summary = check_batchnorm(
        torch.nn.BatchNorm2d, configurations=[ALL["train-5d"], ALL["train-4d"]]
    )
    assert (summary.judged, [*summary.skipped]) == (1, ["train-5d"])


def test_the_number_of_axes_may_be_said():
    summary = check_batchnorm(torch.nn.functional.batch_norm, ndim=3)
    assert summary.judged == len(ALL) - 12
    assert set(summary.skipped.values()) == {
        "2-D input was not asked for", "4-D input was not asked for", "5-D input was not asked for",
    }  # fmt: skip
    with pytest.raises(BatchNormMismatch, match="expected 4D input"):
        check_batchnorm(torch.nn.BatchNorm2d, ndim=(3, 4))


def test_what_raises_everywhere_fails():
    def broken(x, weight, bias, running_mean, running_var, training, momentum, eps):
        raise ValueError("no batch is good enough")

    with pytest.raises(BatchNormMismatch, match="no batch is good enough") as caught:
        check_batchnorm(broken)
    lines = str(caught.value).splitlines()
    assert lines[0] == "broken ran in no configuration."
    assert lines[-1].endswith("annotate its first parameter, such as x: torch.Tensor.")


def test_a_relative_of_batchnorm_is_named():
    some = [*ALL.values()][::3]  # none of them is empty, where it raises IndexError
    some += [ALL["momentum-none"], ALL["steps-cumulative"]]
    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(torch.nn.InstanceNorm2d, configurations=dict.fromkeys(some))
    assert set(caught.value.causes) == {
        "each sample has statistics of its own, as in InstanceNorm",
        "momentum None leaves the running statistics as they are",
        "num_batches_tracked is not counted",
        "running_var is the mean of the samples' own variances",
    }
    assert caught.value.unexplained == ()


def test_what_the_code_raises_is_a_failure_where_it_is_no_refusal():
    class Divides(Honest):
        def factor(self):
            return 1 // 0 if self.momentum is None else self.momentum

    with pytest.raises(BatchNormMismatch, match="ZeroDivisionError") as caught:
        check_batchnorm(Divides)
    assert caught.value.causes == ()
    assert {each.step.configuration.name for each in caught.value.failures} == {
        "momentum-none", "steps-cumulative",
    }  # fmt: skip


def test_what_nobody_thought_of_is_said_plainly():
    class Odd(Honest):
        def affine(self, y):
            made = super().affine(y)
            return made + 0.25 * y**3

    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(Odd)
    assert caught.value.causes == ()
    assert "what no known cause explains:" in str(caught.value)
    assert {each.quantity for each in caught.value.unexplained} >= {"output", "grad_input"}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("BiasedRunningVar", "NoWeight"),
        ("OldMomentum", "EpsOutside"),
        ("BiasedRunningVar", "OldMomentum"),
    ],
)
def test_two_bugs_are_named_both(first, second):
    one, two = PLANTED[first], PLANTED[second]
    both = type("Both", (one[0], two[0]), {})
    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(both)
    assert set(caught.value.causes) == {one[1], two[1]}
    assert caught.value.unexplained == ()


def test_an_end_of_the_process_is_a_failure():
    def ends(x, weight, bias, running_mean, running_var, training, momentum, eps):
        sys.exit(0)

    with pytest.raises(
        BatchNormMismatch, match=r"an end of the process \(SystemExit: 0\)"
    ) as caught:
        check_batchnorm(ends)
    assert caught.value.causes == ()


def test_a_module_that_autograd_cannot_train_fails():
    class Detached(torch.nn.BatchNorm2d):
        def forward(self, x):
            y = super().forward(x)
            return y.detach() if self.training else y

    with pytest.raises(BatchNormMismatch, match="autograd gives no grad_input") as caught:
        check_batchnorm(Detached)
    assert caught.value.causes == ("the gradients are missing in training: autograd cannot pass",)


def test_gradients_that_are_missing_in_some_configurations_are_counted():
    class Detached(torch.nn.BatchNorm2d):
        def forward(self, x):
            y = super().forward(x)
            return y if self.training else y.detach()

    some = [ALL[name] for name in ("train-4d", "eval-4d", "empty")]
    said = str(check_batchnorm(Detached, configurations=some))
    assert "grad_input is not judged in 1 of 2: it is not given there." in said


def test_what_is_random_is_said_to_be():
    """Such noise is not taken for a dtype of few digits."""

    class Noisy(Honest):
        def affine(self, y):
            made = super().affine(y)
            return made + 1e-3 * torch.rand_like(made)

    some = [each for each in ALL.values() if each.name in ("train-3d", "eval-4d", "odd-sizes")]
    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(Noisy, configurations=some)
    assert caught.value.causes == ("the same input gives other numbers each time",)


def test_a_name_is_no_implementation():
    with pytest.raises(ModelError, match="'torch' is a name; give the class"):
        check_batchnorm("torch")


def test_what_is_not_there_is_no_cause():
    """A function has no counter, and one that overwrites nothing is not told to leave things."""

    def odd(x: torch.Tensor, weight, bias, running_mean, running_var, training, momentum, eps):
        y = torch.nn.functional.batch_norm(
            x, running_mean, running_var, weight, bias, training, momentum, eps
        )
        return y + (y * torch.inf * 0) if eps < 1e-20 else y

    some = [ALL[name] for name in ("train-4d", "tiny-values", "denormal-variance")]
    with pytest.raises(BatchNormMismatch) as caught:
        check_batchnorm(odd, configurations=some)
    assert "num_batches_tracked is" not in str(caught.value)
    assert "overwritten" not in str(caught.value)
    assert caught.value.causes == ()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"tolerance_factor": 0}, "tolerance_factor is 0; it has to be a number above 0."),
        ({"tolerance_factor": "2"}, "tolerance_factor is 2; it has to be a number above 0."),
        ({"tolerance_factor": float("nan")}, "tolerance_factor is nan"),
        ({"configurations": []}, "there is no configuration to judge in"),
        ({"ndim": 6}, "ndim is 6; the configurations have 2 to 5 axes."),
        ({"ndim": "4"}, "ndim is '4'; the configurations have 2 to 5 axes."),
        ({"configurations": ["train-4d"]}, "'train-4d' is no configuration"),
        ({"configurations": "train-4d"}, "'train-4d' is no configuration"),
    ],
)
def test_wrong_arguments(arguments, said):
    with pytest.raises(UsageError, match=said.replace(".", r"\.")):
        check_batchnorm(torch.nn.BatchNorm2d, **arguments)


@pytest.mark.parametrize("value", [3, torch.nn.BatchNorm2d(3), np.float32])
def test_what_is_no_implementation(value):
    with pytest.raises(ModelError):
        check_batchnorm(value)


def test_it_needs_no_pytest():
    code = (
        "import sys; sys.modules['pytest'] = None; import bncli.testing; "
        "heavy = [n for n in ('numpy', 'torch', 'rich') if n in sys.modules]; assert not heavy, "
        "heavy; print(bncli.testing.check_batchnorm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("check_batchnorm\n", "")


def test_the_help_lists_every_configuration():
    text = batchnorm_configurations.__doc__
    ranges = {f"{mode}-{ndim}d" for mode in ("train", "eval") for ndim in (3, 4)}  # "to" stands
    for each in ALL:
        assert each in text.split() or f"{each}," in text or each in ranges
