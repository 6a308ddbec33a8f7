"""What a known momentum tells, and what the numbers tell of one that is assumed."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bncli.rulebook.momentum import counter_too_small, initial_weight
from bncli.rulebook.summaries import summary
from tests.rulebook.layers import found, layer
from tests.rulebook.networks import made, norms, residual, train, trained
from tests.told_modules import layer as keras_layer
from tests.told_modules import tell, told_module


def stepped(momentum, steps, scale=0.3, batch=64):
    """Layers of a small network after some batches, whose variances are well below 1."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 12),
                          nn.BatchNorm1d(12))  # fmt: skip
    for module in norms(model).values():
        module.momentum = momentum
    for _ in range(steps):
        model(torch.randn(batch, 6) * scale)
    return model


def with_momentum(momentum):
    model = trained()
    for module in norms(model).values():
        module.momentum = momentum
    return model


# A momentum that is another framework's.


@pytest.mark.parametrize("momentum", [0.95, 0.9, 0.99, 0.997])
def test_a_stored_momentum_of_keras_is_told(run, folder, momentum):
    findings = found(run, with_momentum(momentum), code="BN701")
    assert {f["subject"] for f in findings} == set(norms(trained()))
    for finding in findings:
        assert finding["severity"] == "warning"
        evidence = finding["evidence"]
        assert (evidence["momentum"], evidence["new_weight"]) == (momentum, momentum)
        assert evidence["meant"] == pytest.approx(1 - momentum)
    assert findings[0]["message"] == (
        f"momentum {momentum:g} gives the newest batch {100 * momentum:g}% of the weight"
    )
    assert f"set momentum={1 - momentum:.6g} " in findings[0]["hint"]
    assert {finding["certainty"] for finding in findings} == {"likely"}


def test_a_momentum_that_is_given_is_known(run, folder):
    state = trained().state_dict()
    flags = ("--momentum", "stem.*=0.95", "--momentum", "0.1")
    assert [f["subject"] for f in found(run, state, *flags, code="BN701")] == ["stem.1"]


def test_a_momentum_of_1_has_no_counterpart(run, folder):
    hints = {finding["hint"] for finding in found(run, with_momentum(1.0), code="BN701")}
    assert len(hints) == 1
    assert not any("Keras" in hint for hint in hints)


@pytest.mark.parametrize("momentum", [None, 0.0, 0.01, 0.1, 0.3, 0.5])
def test_a_sane_momentum_is_left_alone(run, folder, momentum):
    assert found(run, with_momentum(momentum), code="BN701") == []


def test_an_assumed_momentum_is_nobodys(run, folder):
    assert found(run, with_momentum(0.95).state_dict(), code="BN701") == []


# Too few batches.


@pytest.mark.parametrize(
    ("momentum", "steps"),
    [(0.05, 1), (0.01, 5), (0.01, 20), (0.001, 40), (0.003, 16), (0.0123, 4), (1e-4, 512)],
)
def test_variances_above_one_value_reveal_the_momentum(run, folder, momentum, steps):
    findings = found(run, stepped(momentum, steps).state_dict(), code="BN105")
    assert [f["subject"] for f in findings] == ["1", "4"]
    for finding in findings:
        evidence = finding["evidence"]
        assert evidence["likely_momentum"] == pytest.approx(momentum, rel=0.15)
        assert evidence["initial_weight"] == pytest.approx((1 - momentum) ** steps, rel=0.03)
        assert (evidence["momentum"], evidence["momentum_assumed"]) == (0.1, True)
        assert f"at momentum {evidence['likely_momentum']:.4g} (likely)" in finding["message"]
        assert "not the assumed 0.1." in finding["detail"]
        assert finding["certainty"] == "likely"


def test_a_momentum_that_is_known_is_not_guessed(run, folder):
    for saved, flags in (
        (stepped(0.01, 5), ()),
        (stepped(0.01, 5).state_dict(), ("--momentum", "0.01")),
    ):
        for finding in found(run, saved, *flags, code="BN105"):
            evidence = finding["evidence"]
            assert (evidence["momentum"], evidence["momentum_assumed"]) == (0.01, False)
            assert evidence["likely_momentum"] is None
            assert evidence["initial_weight"] == pytest.approx(0.99**5)
            assert finding["certainty"] == "certain"
            assert finding["message"] == (
                "95% of each statistic is still the initial 0 or 1 after 5 batches at momentum 0.01"
            )


@pytest.mark.parametrize("steps", [1, 3, 10, 30])
def test_what_was_assumed_rightly_is_not_doubted(run, folder, steps):
    state = train(made(residual), steps).state_dict()
    findings = found(run, state, code="BN105")
    assert findings
    assert {f["evidence"]["likely_momentum"] for f in findings} == {None}
    assert all(f["message"].endswith("at momentum 0.1 (assumed)") for f in findings)
    assert {f["certainty"] for f in findings} == {"depends on an assumption"}


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_normalised_inputs_reveal_nothing(run, folder, steps):
    """Every variance is 1, and stays there at any momentum."""
    bn = nn.BatchNorm1d(16)
    for _ in range(steps):
        bn(torch.randn(256, 16))
    findings = found(run, {f"bn.{k}": v for k, v in bn.state_dict().items()}, code="BN105")
    assert {f["evidence"]["likely_momentum"] for f in findings} == {None}


momenta = st.floats(0, 1, allow_subnormal=False)


@given(momenta, st.integers(1, 200))
def test_initial_weight_is_what_is_left_of_1(momentum, batches):
    exact = (1 - Fraction(momentum)) ** batches
    assert initial_weight(momentum, batches) == pytest.approx(float(exact), rel=1e-9, abs=1e-300)


def test_initial_weight_of_no_average():
    assert initial_weight(None, 5) == 0
    assert initial_weight(1.5, 5) == 0
    assert initial_weight(0.1, 0) == 0
    assert initial_weight(0.0, 7) == 1


@given(
    st.floats(1e-3, 0.999),
    st.lists(st.floats(0, 1e6, width=32), min_size=1, max_size=60),
    st.sampled_from(["float32", "float16"]),
)
def test_a_counter_that_is_right_is_never_called_too_small(momentum, batches, dtype):
    """Whatever the batches' variances are, in the rounding of the dtype that keeps them."""
    var = np.ones(1, dtype)
    with np.errstate(over="ignore"):
        for batch in batches:
            var = ((1 - momentum) * var.astype("f8") + momentum * batch).astype(dtype)
    made = layer(
        channels=1,
        momentum=momentum,
        counter=len(batches),
        dtype=dtype,
        running_var=var,
        running_mean=np.ones(1, dtype),
    )
    assert not counter_too_small(summary(made))


@pytest.mark.parametrize("momentum", [0.5, 0.3, 0.1, 0.03])
def test_the_decay_of_a_dead_channel_never_proves_the_counter_wrong(momentum):
    """PyTorch's own float32, down to the floor at which it stops or underflows."""
    torch_momentum = torch.tensor(momentum).item()
    mean, var = torch.full((2,), 0.5), torch.ones(2)
    x = torch.zeros(4, 2)
    for step in range(1, 1200):
        torch.nn.functional.batch_norm(x, mean, var, training=True, momentum=torch_momentum)
        if step % 40 == 0:
            made = layer(
                channels=2,
                momentum=momentum,
                counter=step,
                running_var=var.numpy().copy(),
                running_mean=np.ones(2, np.float32),
            )
            assert not counter_too_small(summary(made)), step


@pytest.mark.parametrize("steps", [120, 170, 300])
def test_a_variance_that_a_cast_to_float16_lost_proves_nothing(steps):
    """0.9^170 is below half of float16's least number: a dead channel is 0 after the cast."""
    var = np.float32([0.9**steps, 1.0, 1.0, 1.0]).astype(np.float16)
    made = layer(counter=steps, running_var=var, dtype="float16")
    assert not counter_too_small(summary(made))


def test_a_variance_below_the_bound_proves_it():
    bound = 0.9**20
    low = np.float32([1.0, bound * 0.99, 1.0, 1.0])
    assert counter_too_small(summary(layer(counter=20, running_var=low)))
    high = np.float32([1.0, bound * 1.001, 1.0, 1.0])
    assert not counter_too_small(summary(layer(counter=20, running_var=high)))
    assert counter_too_small(summary(layer(counter=0)))
    assert not counter_too_small(
        summary(
            layer(
                counter=0, running_mean=np.zeros(4, np.float32), running_var=np.ones(4, np.float32)
            )
        )
    )


# ------------------------------------------------------------------ another framework's layer


def judged(run, save, monkeypatch, stored, *flags, **tensors):
    """The findings on an .npz with such a layer, by code."""
    tell(monkeypatch, stored)
    save("bn.npz", **keras_layer(**tensors))
    report = run("inspect-checkpoint", "bn.npz", *flags, "-f", "json").report
    return {each["code"]: each for each in report["findings"]}


@pytest.mark.parametrize(
    ("convention", "momentum"),
    [("keras3", 0.99), ("keras2", 0.9), ("onnx", 0.9), ("flax", 0.999), ("tf-v1", 1.0)],
)
def test_a_healthy_layer_of_another_framework_is_left_alone(
    run, save, monkeypatch, convention, momentum
):
    assert not judged(run, save, monkeypatch, told_module(convention, momentum=momentum, eps=1e-3))


@pytest.mark.parametrize(
    ("convention", "framework"), [("keras3", "Keras"), ("onnx", "ONNX"), ("paddle", "PaddlePaddle")]
)
def test_pytorchs_momentum_in_another_framework_is_told(
    run, save, monkeypatch, convention, framework
):
    findings = judged(run, save, monkeypatch, told_module(convention, momentum=0.01, eps=1e-3))
    (inverted,) = findings.values()
    assert inverted["message"] == (
        f"momentum 0.01 ({framework}: weighs the old value) gives the newest batch 99% of the "
        "weight"
    )
    evidence = inverted["evidence"]
    assert (evidence["momentum"], evidence["stated_momentum"]) == (0.99, 0.01)
    assert "If 0.01 follows PyTorch's convention, set momentum=0.99" in inverted["hint"]


def test_a_momentum_of_a_flag_is_pytorchs(run, save, monkeypatch):
    stored = told_module("keras3", momentum=0.01, eps=1e-3)
    assert not judged(run, save, monkeypatch, stored, "--momentum", "0.01")


def counted(run, save, monkeypatch, convention, **tensors):
    """The codes on a layer that counted 3 batches, with variances as they are then."""
    tensors |= {"num_batches_tracked": np.array(3)}
    stored = told_module(convention, momentum=0.99, eps=1e-3)
    return set(judged(run, save, monkeypatch, stored, **tensors))


def test_averages_without_their_initial_values_have_none_left(run, save, monkeypatch):
    var = np.array([0.2, 0.5, 1.5])
    assert "BN305" in counted(run, save, monkeypatch, "keras3", moving_variance=var)
    assert "BN105" in counted(run, save, monkeypatch, "keras3", moving_variance=var + 0.9)
    for haiku in (var, var + 0.9):
        assert not counted(run, save, monkeypatch, "haiku", moving_variance=haiku)


def test_what_begins_at_0_is_never_estimated_rather_than_never_written(run, save, monkeypatch):
    zero = {"moving_mean": np.zeros(3), "moving_variance": np.zeros(3)}
    assert set(judged(run, save, monkeypatch, told_module("keras3"), **zero)) >= {"BN208"}
    haiku = judged(run, save, monkeypatch, told_module("haiku"), **zero)
    assert "BN208" not in haiku
    assert "exactly 0 and 0 in every channel" in haiku["BN103"]["message"]


@pytest.mark.parametrize("flags", [(), ("--momentum=0.1",)])
def test_an_assumed_momentum_can_be_given(run, folder, flags):
    """The first advice is the flag, as with another momentum there may be nothing to repair."""
    hints = {
        each["hint"] for each in found(run, stepped(0.1, 5, 1.5).state_dict(), *flags, code="BN105")
    }
    (hint,) = hints
    assert hint.startswith("Pass --momentum if it was not 0.1. Run more") == (not flags)
    assert ("--momentum" in hint) == (not flags)
