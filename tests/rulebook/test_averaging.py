"""Copies beside the live model: how they are found, and what is told of them."""

import copy
from functools import cache

import pytest
import torch
from torch import nn

from tests.rulebook.faults import average_into
from tests.rulebook.networks import made, norms, residual, train, trained


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def found(run, saved, *flags):
    torch.save(saved, "net.pt")
    result = run("inspect-checkpoint", "net.pt", *flags, "-f", "json")
    assert result.code in (0, 1), result.stderr
    return result.report["findings"]


def codes(findings):
    return {finding["code"] for finding in findings}


def both(live, other, key="ema"):
    return {"model": live.state_dict(), key: other.state_dict()}


@cache
def averaged_from_the_start(decay, steps):
    """A network and its moving average, which began before the first step."""
    model = made(residual)
    average = copy.deepcopy(model)
    train(model, steps, step=lambda live: average_into(average, live, decay, buffers=True))
    return model, average


@cache
def averaged_later(decay):
    """A trained network and its moving average over 200 steps more."""
    model = trained()
    average = copy.deepcopy(model)
    train(model, 200, step=lambda live: average_into(average, live, decay, buffers=True))
    return model, average


# How much of a copy is still initial.


@pytest.mark.parametrize(
    ("decay", "steps"),
    [
        pytest.param(0.9998, 800, marks=pytest.mark.exhaustive),
        (0.999, 160),
        (0.99, 120),
    ],
)
def test_a_copy_that_is_averaged_too_briefly_says_by_how_much(run, folder, decay, steps):
    model, average = averaged_from_the_start(decay, steps)
    findings = [f for f in found(run, both(model, average)) if f["code"] == "BN608"]
    assert len(findings) == len(norms(model))
    for finding in findings:
        assert finding["severity"] == "warning"
        assert finding["evidence"]["initial_weight"] == pytest.approx(decay**steps, rel=0.2)
        assert finding["evidence"]["decay"] == pytest.approx(decay, abs=0.25 * (1 - decay))


def test_a_share_of_the_initial_value_is_seen_in_every_floating_point_type(run, folder):
    model, average = averaged_from_the_start(0.999, 160)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        saved = both(copy.deepcopy(model).to(kind), copy.deepcopy(average).to(kind))
        shares = {
            round(f["evidence"]["initial_weight"], 1)
            for f in found(run, saved)
            if f["code"] == "BN608"
        }
        assert shares == {0.9}  # 0.999^160 = 0.85


@pytest.mark.parametrize("decay", [0.9, 0.99])
@pytest.mark.parametrize("counter", [0, 1, 150])
def test_an_average_that_has_caught_up_is_a_fact_and_not_a_fault(run, folder, decay, counter):
    model, average = map(copy.deepcopy, averaged_later(decay))
    for module in norms(average).values():
        module.num_batches_tracked.fill_(counter)
    findings = found(run, both(model, average))
    assert {f["severity"] for f in findings} == {"info"}
    (fact,) = (f for f in findings if f["code"] == "BN604")
    assert len(fact["evidence"]["layers"]) == len(norms(model))
    assert fact["evidence"]["counters_behind"] == len(norms(model))
    number, apart = len(norms(model)), fact["evidence"]["statistics_apart"]
    assert fact["message"] == (
        f"{number} layers have statistics other than the live model's, {apart:.2g} std away in the "
        "median"
    )
    assert f"{number} counters are behind the live ones." in fact["detail"]
    assert "should be" not in fact["hint"]


def test_a_teacher_that_is_another_network_is_not_left_behind(run, folder):
    torch.manual_seed(7)
    teacher = train(residual(), 90, seed=5, transform=lambda x: 2 * x)
    findings = found(run, {"student": trained().state_dict(), "teacher": teacher.state_dict()})
    assert {"BN604"} <= codes(findings) <= {"BN604", "BN305"}


def test_statistics_estimated_anew_are_not_left_behind(run, folder):
    """update_bn counts its own batches, fewer than training had."""
    model = trained()
    swa = torch.optim.swa_utils.AveragedModel(model)
    train(model, 30, seed=1, step=swa.update_parameters)
    generator = torch.Generator().manual_seed(9)
    batches = [torch.randn(16, 3, 6, 6, generator=generator) * 3 + 2 for _ in range(20)]
    torch.optim.swa_utils.update_bn(batches, swa)
    assert not codes(found(run, both(model, swa, "swa"))) & {"BN605", "BN608", "BN609"}


@cache
def averaged_over_parameters():
    """An average that began at a trained network, and the live one on other data since."""
    model = trained()
    average = copy.deepcopy(model)
    train(model, transform=lambda x: 3 * x + 2, step=lambda live: average_into(average, live))
    return model, average


def left_behind(counter=None):
    model, average = map(copy.deepcopy, averaged_over_parameters())
    for module in norms(average).values():
        if counter is not None:
            module.num_batches_tracked.fill_(counter)
    return both(model, average)


@pytest.mark.parametrize("counter", [None, 0])
def test_statistics_that_did_not_move_are_told_with_both_counters(run, folder, counter):
    saved = left_behind(counter)
    (finding,) = (f for f in found(run, saved) if f["subject"] == "ema.stem.1"
                  and f["code"] == "BN609")  # fmt: skip
    ours = 160 if counter is None else counter
    assert finding["evidence"]["num_batches_tracked"] == ours
    assert finding["evidence"]["live_num_batches_tracked"] == 320
    assert finding["evidence"]["statistics_apart"] > 1
    assert finding["evidence"]["weights_apart"] < 0.1
    assert f"num_batches_tracked is {ours}, and 320 in model.stem.1" in finding["detail"]


def test_a_copy_that_ran_its_own_batches_is_not_left_behind(run, folder):
    """As a mean teacher in training mode, which sees other views of the data."""
    assert "BN609" not in codes(found(run, left_behind(counter=320)))


# Target networks.


def q_network():
    return nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2))


def q_networks(*, affine=True, buffers=False):
    """A value network and its target, which gets the parameters every so many steps."""
    torch.manual_seed(0)
    live = q_network()
    if not affine:
        live[1] = nn.BatchNorm1d(32, affine=False)
    target = copy.deepcopy(live)
    optimizer = torch.optim.Adam(live.parameters(), 1e-3)
    for step in range(230):
        optimizer.zero_grad()
        (live(torch.randn(32, 4) * 3 + 1) - 1).square().mean().backward()
        optimizer.step()
        if step % 100 == 99:
            for ours, theirs in zip(target.parameters(), live.parameters(), strict=True):
                ours.data.copy_(theirs.data)
            if buffers:
                target.load_state_dict(live.state_dict())
    return live, target


def below(state, prefix):
    return {f"{prefix}.{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    ("live", "target"),
    [
        ("q_net", "q_net_target"),
        ("actor", "actor_target"),
        ("qf1", "target_qf1"),
        ("policy", "policy_old"),
        ("critic.net", "critic_target.net"),
        ("net", "netTarget"),
    ],
)
@pytest.mark.parametrize("affine", [True, False])
def test_a_target_without_the_twins_buffers_is_told_where_they_are(
    run, folder, live, target, affine
):
    ours, theirs = q_networks(affine=affine)
    saved = below(ours.state_dict(), live) | below(theirs.state_dict(), target)
    (finding,) = found(run, saved)
    assert (finding["code"], finding["subject"]) == ("BN101", f"{target}.1")
    assert finding["severity"] == "error"
    assert finding["evidence"]["live"] == f"{live}.1"
    assert finding["evidence"]["cause"] == "buffers-left-out"
    assert f"{live}.1" in finding["hint"]


def test_of_several_twins_the_target_follows_its_own(run, folder):
    actor, actor_target = q_networks()
    critic = train_apart(5)
    saved = (
        below(critic.state_dict(), "critic")
        | below(actor.state_dict(), "actor")
        | below(actor_target.state_dict(), "actor_target")
    )
    (finding,) = (f for f in found(run, saved) if f["code"] == "BN101")
    assert finding["evidence"]["live"] == "actor.1"


def train_apart(seed):
    torch.manual_seed(seed)
    network = q_network()
    for _ in range(60):
        network(torch.randn(32, 4))
    return network


def test_a_target_that_got_the_buffers_too_is_fine(run, folder):
    live, target = q_networks(buffers=True)
    findings = found(
        run, below(live.state_dict(), "q_net") | below(target.state_dict(), "q_target")
    )
    assert {f["severity"] for f in findings} <= {"info"}


@pytest.mark.parametrize("name", ["target_head", "head_old", "momentum_head"])
def test_another_network_of_such_a_name_is_not_a_twin(run, folder, name):
    """A second head for the target domain, trained on its own or not trained yet."""
    saved = below(train_apart(1).state_dict(), "head")
    trained_one = found(run, saved | below(train_apart(2).state_dict(), name))
    assert codes(trained_one) <= {"BN302"}
    torch.manual_seed(3)
    fresh = found(run, saved | below(q_network().state_dict(), name))
    assert codes(fresh) == {"BN103", "BN302"}


def test_a_copy_that_is_all_initial_got_no_parameters_either(folder, run):
    findings = found(run, both(trained(residual), made(residual), "teacher"))
    never = [finding for finding in findings if finding["code"] == "BN602"]
    assert len(never) == len(norms(made(residual)))
    for finding in never:
        assert finding["evidence"]["cause"] == "never-updated"
        assert "nothing of the copy was ever updated" in finding["detail"]
        assert "parameters were copied" not in finding["detail"]


def test_a_copy_that_is_far_may_have_been_re_estimated(folder, run):
    live = trained(residual)
    other = copy.deepcopy(live)
    for norm in norms(other).values():
        norm.running_mean += 2 * norm.running_var.sqrt()
        norm.num_batches_tracked.fill_(40)
    findings = [each for each in found(run, both(live, other)) if each["code"] == "BN609"]
    assert findings
    assert all("unless they were re-estimated" in each["detail"] for each in findings)


def test_nearly_all_is_said_in_digits(folder, run):
    live = trained(residual)
    other = copy.deepcopy(live)
    for norm in norms(other).values():
        norm.running_mean *= 0.002
        norm.running_var.mul_(0.002).add_(0.998)
    findings = [each for each in found(run, both(live, other)) if each["code"] == "BN608"]
    # The 160 batches of `trained`: 0.998^(1/160), to two digits of what a step takes.
    share = "about 99.8% of each statistic is still the initial 0 or 1"
    said = f"{share}, as after 160 steps of decay 0.999987"
    assert {each["message"] for each in findings} == {said}
    live_names = {each["evidence"]["live"] for each in findings}
    assert {each["detail"] for each in findings} == {
        f"running_var is 0.998 + 0.002 times that of {name}." for name in live_names
    }
