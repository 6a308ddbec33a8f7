"""What a way gives, against PyTorch in float64, rational arithmetic and identify's hypotheses."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from bncli.backends.users import users_backend
from bncli.model import RunningStats
from bncli.testing import batchnorm_configurations
from bncli.testing.inputs import layer_of
from bncli.testing.prediction import predicted
from bncli.testing.runs import Step, raising, steps_of
from bncli.testing.ways import PYTORCH
from bncli.verify.exact import ExactPass, exact_channel
from bncli.verify.identify.hypotheses import EVAL, TRAINING, Hypothesis, Known, channel_map
from bncli.verify.identify.running import Observed
from bncli.verify.identify.updates import Update

ALL = {str(each): each for each in batchnorm_configurations()}


def step_of(name: str) -> Step:
    def nothing(x, weight, bias, running_mean, running_var, training, momentum, eps):
        return x

    return steps_of(users_backend(nothing, raising), ALL[name])[0]


@pytest.mark.parametrize("name", ["train-2d", "train-5d", "eval-4d", "mean-10000", "signed-weight",
                                  "momentum-none", "no-statistics-eval", "one-sample"])  # fmt: skip
def test_pytorchs_way_is_exact(name):
    """Each channel in fractions; the differences are last places of float64."""
    step = step_of(name)
    call, found = step.call, predicted(step, PYTORCH)
    for channel in range(call.x.shape[1]):
        x, g = call.x[:, channel], call.grad_output[:, channel]
        sums = exact_channel(x, g)
        own = call.settings.normalizes_with_batch
        exact = ExactPass(
            sums,
            sums.mean if own else Fraction(call.running.running_mean[channel]),
            sums.var if own else Fraction(call.running.running_var[channel]),
            call.settings.eps,
            float(call.weight[channel]),
            float(call.bias[channel]),
            own,
        )
        output = [float(exact.output(value)) for value in x.ravel().tolist()]
        assert found["output"][:, channel].ravel() == pytest.approx(output, rel=1e-14, abs=1e-14)
        pairs = zip(x.ravel().tolist(), g.ravel().tolist(), strict=True)
        gradient = [float(exact.grad_input(*pair)) for pair in pairs]
        assert found["grad_input"][:, channel].ravel() == pytest.approx(
            gradient, rel=1e-11, abs=1e-13
        )
        assert found["grad_weight"][channel] == pytest.approx(float(exact.grad_weight), abs=1e-11)
        assert found["grad_bias"][channel] == pytest.approx(float(sums.g), abs=1e-13)
        if call.settings.training:
            n = sums.count
            factor = Fraction(call.settings.momentum or Fraction(1, 5))
            for quantity, batch in (("running_mean", sums.mean),
                                    ("running_var", sums.var * n / (n - 1))):  # fmt: skip
                before = Fraction(getattr(call.running, quantity)[channel])
                after = (1 - factor) * before + factor * batch
                assert found[quantity][channel] == pytest.approx(float(after), rel=1e-14)


FORMULAS = {
    "outside": ({"train.root": "outside"}, lambda v, e, n: 1 / (v.sqrt() + e)),
    "none": ({"train.root": "none"}, lambda v, e, n: 1 / (v + e)),
    "largest": ({"train.root": "largest"}, lambda v, e, n: v.clamp(min=e) ** -0.5),
    "unscaled": ({"train.root": "unscaled"}, lambda v, e, n: v * 0 + 1),
    "unbiased": ({"train.ddof": 1}, lambda v, e, n: (v * n / (n - 1) + e) ** -0.5),
    "eps 0.1": ({"train.eps": 0.1}, lambda v, e, n: (v + 0.1) ** -0.5),
    "inside": ({}, lambda v, e, n: (v + e) ** -0.5),
}
AFFINE = {
    "": lambda x_hat, w, b: x_hat * w + b,
    "no weight": lambda x_hat, w, b: x_hat + b,
    "no bias": lambda x_hat, w, b: x_hat * w,
    "bias first": lambda x_hat, w, b: (x_hat + b) * w,
    "1 + weight": lambda x_hat, w, b: x_hat * (1 + w) + b,
    "swapped": lambda x_hat, w, b: x_hat * b + w,
}
GROUPS = {"channel": (0, 2, 3), "sample": (2, 3), "places": (0,), "features": (1, 2, 3),
          "all": (0, 1, 2, 3)}  # fmt: skip


@pytest.mark.parametrize(
    ("root", "affine", "groups", "centered", "mean_square"),
    [
        *((root, "", "channel", True, False) for root in FORMULAS),
        *(("outside", affine, "channel", True, False) for affine in AFFINE),
        *(("inside", "", groups, True, False) for groups in GROUPS),
        ("unbiased", "bias first", "channel", False, False),
        ("inside", "", "channel", True, True),
        ("inside", "", "channel", False, True),
    ],
)
def test_a_wrong_forward_pass_has_the_gradients_of_autograd(
    root, affine, groups, centered, mean_square
):
    step = step_of("train-4d")
    call, axes = step.call, GROUPS[groups]
    changes, formula = FORMULAS[root]
    x, w, b = (
        torch.tensor(values, dtype=torch.float64, requires_grad=True)
        for values in (call.x, call.weight[:, None, None], call.bias[:, None, None])
    )
    mean = x.mean(axes, keepdim=True)
    var = (x**2 if mean_square else (x - mean) ** 2).mean(axes, keepdim=True)
    count = x.numel() / mean.numel()
    y = AFFINE[affine]((x - mean * centered) * formula(var, call.settings.eps, count), w, b)
    y.backward(torch.from_numpy(call.grad_output).double())
    way = PYTORCH.changed(
        {
            **changes,
            "train.affine": affine,
            "train.groups": groups,
            "train.centered": centered,
            "train.mean_square": mean_square,
        }
    )
    found = predicted(step, way)
    assert found["output"] == pytest.approx(y.detach().numpy(), abs=1e-12)
    assert found["grad_input"] == pytest.approx(x.grad.numpy(), abs=1e-12)
    for name, tensor in (("grad_weight", w), ("grad_bias", b)):
        assert (name in found) == (tensor.grad is not None)
        if name in found:
            assert found[name] == pytest.approx(tensor.grad.numpy().ravel(), abs=1e-11)


@pytest.mark.parametrize(
    ("mode", "changes", "hypothesis"),
    [
        ("train", {}, {}),
        ("train", {"train.ddof": 1}, {"ddof": 1}),
        ("train", {"train.root": "outside"}, {"outside": True}),
        ("train", {"train.centered": False}, {"statistics": "mean not subtracted"}),
        ("train", {"train.root": "unscaled"},
         {"statistics": "not divided by the standard deviation"}),
        ("train", {"train.affine": "no weight"}, {"affine": "weight ignored"}),
        ("train", {"train.affine": "neither"}, {"affine": "weight and bias ignored"}),
        ("eval", {}, {}),
        ("eval", {"evaluate.root": "outside"}, {"outside": True}),
        ("eval", {"evaluate.eps": 1e-3}, {"eps": 1e-3}),
        ("eval", {"evaluate.stored": "swapped"},
         {"statistics": "running_mean and running_var swapped"}),
        ("eval", {"evaluate.stored": "invstd"}, {"statistics": "running_var taken for invstd"}),
        ("eval", {"evaluate.stored": "of invstd"}, {"statistics": "invstd taken for running_var"}),
        ("eval", {"evaluate.source": "fresh"}, {"statistics": "statistics 0 and 1"}),
        ("eval", {"evaluate.centered": False}, {"statistics": "mean not subtracted"}),
    ],
)  # fmt: skip
def test_the_output_is_that_of_identifys_hypothesis(mode, changes, hypothesis):
    step = step_of(f"{mode}-4d")
    call = step.call
    found = predicted(step, PYTORCH.changed(changes))["output"]
    running = call.running
    known = Known(call.weight, call.bias, running.running_mean, running.running_var)
    plain = {"mode": TRAINING, "ddof": 0} if mode == "train" else {"mode": EVAL, "ddof": None}
    made = channel_map(Hypothesis(**{**plain, "eps": 1e-5, **hypothesis}), known, step.stats)
    center, scale, bias = (values[:, None, None] for values in (made.center, made.scale, made.bias))
    with np.errstate(invalid="ignore"):
        assert found == pytest.approx((call.x - center) * scale + bias, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("changes", "update"),
    [
        ({}, Update(0.1, "unbiased")),
        ({"update.variance": "biased"}, Update(0.1, "biased")),
        ({"update.variance": "keras2"}, Update(0.1, "keras2")),
        ({"update.variance": "std"},
         Update(0.1, "unbiased", "the standard deviation taken for the variance")),
        ({"update.kept_eps": True}, Update(0.1, "unbiased", "", kept_eps=1e-5)),
        ({"update.weighs": "old"}, Update(0.9, "unbiased")),
        ({"update.momentum": 0.01}, Update(0.01, "unbiased")),
        ({"update.twice": True}, Update(0.19, "unbiased")),
        ({"update.of": "mean"}, Update(0.0, "unbiased", mean_weight=0.1)),
        ({"update.when": "never"}, Update(0.0, "unbiased")),
    ],
)  # fmt: skip
def test_the_buffers_are_those_of_identifys_update(changes, update):
    step = step_of("eps-1e-3" if update.variance == "keras2" else "train-3d")  # Keras' own eps
    found = predicted(step, PYTORCH.changed(changes))
    after = RunningStats(found["running_mean"], found["running_var"], 5)
    observed = Observed(step.stats, step.call.running, after, "float64")
    measured = observed.measured(update)
    assert measured.max_abs_diff < 1e-12
    plain = observed.measured(Update(0.1, "unbiased"))
    assert (plain.max_abs_diff < 1e-12) == (not changes)


def test_a_way_that_cannot_run_has_no_prediction():
    last = PYTORCH.changed({"train.groups": "last"})
    assert predicted(step_of("train-4d"), last) is None
    assert predicted(step_of("square-4d"), last) is not None


def test_without_statistics_evaluation_may_take_new_ones():
    step = step_of("no-statistics-eval")
    layer = layer_of(step.configuration)
    found = predicted(step, PYTORCH.changed({"evaluate.source": "fresh if none"}))["output"]
    weight, bias = layer.weight[:, None, None], layer.bias[:, None, None]
    assert found == pytest.approx(step.call.x / np.sqrt(1 + 1e-5) * weight + bias)
