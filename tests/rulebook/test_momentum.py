"""What a momentum that is known says, and what the numbers say of one that is assumed."""

import copy

import pytest
import torch
from torch import nn

from tests.rulebook.networks import made, norms, residual, train, trained


def found(run, saved, *flags, code=None):
    torch.save(saved, "net.pt")
    result = run("inspect-checkpoint", "net.pt", *flags, "-f", "json")
    assert result.code in (0, 1), result.stderr
    findings = result.report["findings"]
    return [f for f in findings if code is None or f["code"] == code]


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


# A momentum that is another framework's.


def with_momentum(momentum):
    model = trained()
    for module in norms(model).values():
        module.momentum = momentum
    return model


@pytest.mark.parametrize("momentum", [0.95, 0.9, 0.99, 0.997])
def test_a_stored_momentum_of_keras_is_told(run, folder, momentum):
    findings = found(run, with_momentum(momentum), code="BN701")
    assert {f["subject"] for f in findings} == set(norms(trained()))
    for finding in findings:
        assert finding["severity"] == "warning"
        evidence = finding["evidence"]
        assert (evidence["momentum"], evidence["new_weight"]) == (momentum, momentum)
        assert evidence["meant"] == pytest.approx(1 - momentum)
    assert f"{100 * momentum:g} %" in findings[0]["message"]


def test_a_momentum_that_is_given_is_known(run, folder):
    state = trained().state_dict()
    flags = ("--momentum", "stem.*=0.95", "--momentum", "0.1")
    assert [f["subject"] for f in found(run, state, *flags, code="BN701")] == ["stem.1"]


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
def test_variances_above_one_value_betray_the_momentum(run, folder, momentum, steps):
    findings = found(run, stepped(momentum, steps).state_dict(), code="BN105")
    assert [f["subject"] for f in findings] == ["1", "4"]
    for finding in findings:
        evidence = finding["evidence"]
        assert evidence["likely_momentum"] == pytest.approx(momentum, rel=0.15)
        assert evidence["initial_weight"] == pytest.approx((1 - momentum) ** steps, rel=0.03)
        assert (evidence["momentum"], evidence["momentum_assumed"]) == (0.1, True)
        assert "assumed" in finding["message"]


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
            assert "assumed" not in finding["message"]


@pytest.mark.parametrize("steps", [1, 3, 10, 30])
def test_what_was_assumed_rightly_is_not_doubted(run, folder, steps):
    state = train(made(residual), steps).state_dict()
    findings = found(run, state, code="BN105")
    assert findings
    assert {f["evidence"]["likely_momentum"] for f in findings} == {None}
    assert all("assumed" in f["message"] for f in findings)


@pytest.mark.parametrize("steps", [1, 5, 20])
def test_normalised_inputs_betray_nothing(run, folder, steps):
    """Every variance is 1, and stays there at any momentum."""
    bn = nn.BatchNorm1d(16)
    for _ in range(steps):
        bn(torch.randn(256, 16))
    findings = found(run, {f"bn.{k}": v for k, v in bn.state_dict().items()}, code="BN105")
    assert {f["evidence"]["likely_momentum"] for f in findings} == {None}


# A counter that is too small: the causes that the file leaves.


def too_small(run, saved, *flags):
    return {
        f["subject"]: f["evidence"] | {"message": f["message"]}
        for f in found(run, saved, *flags, code="BN305")
    }


def counted(counter, model=None):
    model = model or trained()
    for module in norms(model).values():
        module.num_batches_tracked.fill_(counter)
    return model


def test_an_assumed_momentum_may_be_another_and_is_told_from_which_on(run, folder):
    evidence = too_small(run, counted(3).state_dict())["layer1.0.bn1"]
    assert "other-momentum" in evidence["causes"]
    least = 1 - evidence["least_var"] ** (1 / 3)
    assert f"from {least:.3g} on" in evidence["message"]
    assert "instance-norm" not in evidence["causes"]


@pytest.mark.parametrize("flags", [(), ("--momentum", "0.1")])
def test_a_momentum_that_is_known_is_no_other(run, folder, flags):
    saved = counted(3).state_dict() if flags else counted(3)
    evidence = too_small(run, saved, *flags)["layer1.0.bn1"]
    assert evidence["causes"] == ["averaged-copy", "converted", "old-weights"]
    assert "another momentum" not in evidence["message"]


def test_a_stored_batch_norm_is_no_instance_norm(run, folder):
    assert "instance-norm" in too_small(run, counted(0).state_dict())["stem.1"]["causes"]
    assert "instance-norm" not in too_small(run, counted(0))["stem.1"]["causes"]


@pytest.mark.parametrize("counter", [0, 3])
def test_means_that_are_all_0_are_said_and_leave_fewer_causes(run, folder, counter):
    model = counted(counter)
    model.layer1[0].bn1.running_mean.zero_()
    evidence = too_small(run, model.state_dict())
    assert evidence["layer1.0.bn1"]["mean_zero"] is True
    assert evidence["layer1.0.bn1"]["causes"] == ["converted", "edited"]
    assert "exactly 0" in evidence["layer1.0.bn1"]["message"]
    assert evidence["layer1.0.bn2"]["mean_zero"] is False


def test_what_no_batch_made_is_not_called_an_average(run, folder):
    """NaN is BN201's; the counter of 0 beside it is no sign of a copy."""
    model = counted(0)
    model.stem[1].running_var.fill_(torch.nan)
    assert "stem.1" not in too_small(run, model.state_dict())


# Counters that count nothing.


@pytest.mark.parametrize(
    ("counter", "code", "cause"),
    [
        (10**9, None, None),
        (10**9 + 1, "BN307", "not-a-count-of-batches"),
        (2**62, "BN307", "not-a-count-of-batches"),
        (-(2**40), "BN304", "overwritten"),
    ],
)
def test_a_counter_is_believed_up_to_a_thousand_million(run, folder, counter, code, cause):
    model = trained()
    model.stem[1].num_batches_tracked.fill_(counter)
    findings = [f for f in found(run, model.state_dict()) if f["code"] in ("BN304", "BN307")]
    assert [f["code"] for f in findings] == ([code] if code else [])
    for finding in findings:
        assert finding["severity"] == "warning"
        assert finding["evidence"]["cause"] == cause
        assert finding["evidence"]["num_batches_tracked"] == counter
        assert counter < 0 or str(counter) in finding["message"]


def test_an_unbelievable_counter_is_no_group_and_no_multiple(run, folder):
    model = trained()
    model.stem[1].num_batches_tracked.fill_(160 * 10**8)
    assert {f["code"] for f in found(run, model.state_dict())} == {"BN307"}


# Reset, or a momentum of 0.


@pytest.mark.parametrize(
    ("stored", "momentum", "cause"),
    [(False, 0.1, "momentum-0-or-reset"), (True, 0.1, "reset"), (True, 0.0, "momentum-0")],
)
def test_a_momentum_that_is_known_tells_why_nothing_moved(run, folder, stored, momentum, cause):
    model = copy.deepcopy(trained())
    for module in norms(model).values():
        module.momentum = momentum
        module.running_mean.zero_()
        module.running_var.fill_(1)
    findings = found(run, model if stored else model.state_dict(), code="BN104")
    assert {f["evidence"]["cause"] for f in findings} == {cause}
