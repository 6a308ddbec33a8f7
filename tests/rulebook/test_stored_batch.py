"""A batch beside stored statistics: what is planted is found, and what is healthy is left alone."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.model import BatchNormSettings, RunningStats
from bncli.moments import channel_stats
from bncli.rulebook.stored_batch import stored_batch_findings
from bncli.running_stats.chance import t_quantile
from tests.healthy_batches import findings_of, healthy
from tests.sampling import sampled

HEALTHY = int(os.environ.get("BNCLI_HEALTHY", "60"))
"""Random healthy configurations; 1,000 take some minutes."""

EVAL = BatchNormSettings(training=False)


def images(number=16, channels=4, side=8, seed=0):
    """Smooth images with a brightness of their own: pixels are nothing like independent."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(number, channels, side, side))
    for axis in (2, 3):
        x = (x + np.roll(x, 1, axis) + np.roll(x, 2, axis)) / np.sqrt(3)
    return x + rng.normal(size=(number, channels, 1, 1)) / 2


def trained(draw, steps=100, momentum=0.1):
    """What a module of PyTorch holds after batches that `draw` gives."""
    first = torch.from_numpy(draw(0))
    module = torch.nn.BatchNorm2d(first.shape[1], momentum=momentum).double()
    for seed in range(steps):
        module(torch.from_numpy(draw(1000 + seed)))
    return RunningStats(module.running_mean.numpy(), module.running_var.numpy(), steps)


def judged(x, running, *, weight=None, settings=EVAL):
    stats = channel_stats(x, sample_axis=0)
    return stored_batch_findings(stats, running, weight, settings, [stats], None)


@pytest.fixture(scope="module")
def running():
    return trained(lambda seed: images(seed=seed))


def test_a_batch_like_those_of_training_is_left_alone(running):
    for seed in range(20):
        assert judged(images(seed=seed), running) == []


@pytest.mark.parametrize("factor", [100.0, 0.01])
def test_a_variance_that_is_100_times_off(running, factor):
    wrong = replace(running, running_var=running.running_var * np.array([1, factor, 1, 1]))
    x = images(seed=5)
    (finding,) = judged(x, wrong)
    evidence = finding.evidence
    assert (finding.code, finding.severity.value) == ("BN013", "warning")
    assert evidence["channels"] == [1]
    var = x[:, 1].var() * x[:, 1].size / (x[:, 1].size - 1)
    assert evidence["var_ratio"] == pytest.approx([var / wrong.running_var[1]])
    scale = wrong.running_var[1] + EVAL.eps
    expected = np.sqrt((var + EVAL.eps) / scale) - 1
    assert evidence["predicted_error"] == pytest.approx([abs(expected)])
    assert abs(evidence["z_var"][0]) > evidence["border"]
    assert finding.extent == ()  # it drifts with training
    ratio, error = evidence["var_ratio"][0], evidence["predicted_error"][0]
    assert finding.message == f"the variance is {ratio:.3g} times running_var"
    assert f"The output is off by {error:.2g} times the layer's scale" in finding.detail
    assert "1 of 4 channels" in finding.detail


def test_a_mean_that_is_off_by_two_standard_deviations(running):
    x = images(seed=6)
    off = np.sqrt(running.running_var[2])
    wrong = replace(running, running_mean=running.running_mean + np.array([0, 0, 2 * off, 0]))
    (finding,) = judged(x, wrong)
    assert finding.evidence["channels"] == [2]
    zm = (x[:, 2].mean() - wrong.running_mean[2]) / np.sqrt(wrong.running_var[2] + EVAL.eps)
    assert finding.evidence["mean_off_in_std"] == pytest.approx([zm])
    assert finding.evidence["predicted_error"] == pytest.approx([abs(zm)], rel=1e-6)
    assert finding.message == f"the mean is {abs(zm):.3g} std below running_mean"
    z = abs(finding.evidence["z_mean"][0])
    assert finding.detail.startswith(f"That is {z:.3g} standard errors of the mean.")
    lower = replace(running, running_mean=running.running_mean - np.array([0, 0, 2 * off, 0]))
    assert "std above running_mean" in judged(x, lower)[0].message


def test_the_standard_error_is_that_of_the_samples(running):
    """Of the samples' means, with momentum/(2 - momentum) of a batch's for the running mean."""
    x = images(number=32, seed=7)
    wrong = replace(running, running_mean=running.running_mean + 9.0)
    (finding,) = judged(x, wrong)
    means = x.mean((2, 3))
    missing = np.maximum(0, wrong.running_var - x.var((0, 2, 3)))
    expected = np.sqrt((means.var(0, ddof=1) + missing) / 32 * (1 + 0.1 / 1.9))
    assert finding.evidence["standard_error_mean"] == pytest.approx(expected.tolist())
    assert np.sqrt(x.var((0, 2, 3)) / x[:, 0].size).max() < expected.min() / 2  # by pixels
    assert finding.evidence["border"] == t_quantile(1e-6, 31)
    assert finding.evidence["samples"] == 32


def test_the_error_is_that_of_pytorchs_output(running):
    """What PyTorch's evaluation gives, against what it would with the batch's own statistics."""
    x = images(seed=8)
    wrong = replace(running, running_var=running.running_var * 100)
    weight = np.array([1.0, 2.0, 0.5, -1.0])
    (finding,) = judged(x, wrong, weight=weight)
    module = torch.nn.BatchNorm2d(4).double().eval()
    module.weight.data = torch.from_numpy(weight)
    module.running_mean, module.running_var = map(
        torch.from_numpy, (wrong.running_mean, wrong.running_var)
    )
    with torch.no_grad():
        std = module(torch.from_numpy(x)).numpy().std((0, 2, 3))
    assert finding.evidence["channels"] == [0, 1, 2, 3]
    expected = (1 - std / np.abs(weight)) * np.abs(weight) / np.sqrt(np.mean(weight**2))
    assert finding.evidence["predicted_error"] == pytest.approx(expected.tolist(), rel=0.02)


def test_an_error_below_10_percent_is_none(running):
    """However sure it is: 4,096 samples tell a variance that is 15 % off."""
    x = images(number=4096, side=2, seed=9)
    stats = channel_stats(x)
    near = RunningStats(stats.mean, stats.unbiased_var * 1.15, 100)
    none = replace(EVAL, momentum=None)
    assert judged(x, near, settings=none) == []
    off = RunningStats(stats.mean, stats.unbiased_var * 1.5, 100)
    assert len(judged(x, off, settings=none)[0].evidence["channels"]) == 4


def test_a_channel_that_the_output_hardly_has_is_none(running):
    wrong = replace(running, running_var=running.running_var * 100)
    weight = np.array([1.0, 0.05, 1.0, 1.0])
    assert judged(images(seed=5), wrong, weight=weight)[0].evidence["channels"] == [0, 2, 3]
    tiny = judged(images(seed=5), wrong, weight=np.full(4, 1e-3))
    assert tiny[0].evidence["channels"] == [0, 1, 2, 3]  # of the layer's own scale
    assert judged(images(seed=5), wrong, weight=np.zeros(4)) == []


def test_one_sample_tells_nothing(running):
    wrong = replace(running, running_var=running.running_var * 100)
    assert judged(images(number=1), wrong) == []


@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_few_samples_of_a_small_batch_are_not_blamed(number):
    running = trained(lambda seed: images(number=number, seed=seed))
    for seed in range(30):
        assert judged(images(number=number, seed=seed), running) == []


def test_a_channel_that_does_not_fire_in_this_batch_is_not_blamed():
    """One sample in fifty has anything in it, in some channels, and most batches of 16 have none.

    Channels beside them, which fire more often, tell that such samples are to be expected.
    """
    rates = np.geomspace(0.02, 0.5, 12)[:, np.newaxis, np.newaxis]

    def draw(seed, number=16):
        rng = np.random.default_rng(seed)
        fires = rng.uniform(size=(number, 12, 1, 1)) < rates
        noise = rng.normal(0, 0.01, (number, 12, 4, 4))
        return fires * rng.exponential(5, (number, 12, 4, 4)) + noise

    running = trained(draw, steps=400)
    for seed in range(100):
        assert judged(draw(seed), running) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_compared(running, bad):
    x = images(seed=5)
    x[0, 0, 0, 0] = bad
    broken = running.running_var * np.array([1, 1, 100, 1])
    broken[3] = bad
    (finding,) = judged(x, replace(running, running_var=broken))
    assert finding.evidence["channels"] == [2]
    assert judged(x * np.nan, running) == []
    assert judged(images(seed=5), replace(running, running_var=-running.running_var)) == []


def test_the_dead_channels_of_a_checkpoint_are_not_blamed(running):
    """Below eps neither variance sets the output's scale, and a constant channel has none."""
    x = images(seed=5) * np.array([1e-6, 1, 0, 1])[:, None, None]
    var = running.running_var * np.array([1e-9, 1, 1, 1])
    mean = running.running_mean * np.array([1e-6, 1, 1, 1])
    assert judged(x, RunningStats(mean, var, 100)) == []


@pytest.mark.parametrize("momentum", [0.0, -0.5, 2.0, 3.0, None, 1.0])
def test_any_momentum(running, momentum):
    wrong = replace(running, running_var=running.running_var * 100)
    settings = replace(EVAL, momentum=momentum)
    assert len(judged(images(seed=5), wrong, settings=settings)) == 1
    assert judged(images(seed=5), running, settings=settings) == []


@pytest.mark.parametrize("first", sampled(range(0, HEALTHY, 20), lambda place: place == 0))
def test_random_healthy_batches_are_not_blamed(first):
    """Eight kinds of values, alike within samples or not; sorted or not; one input or several."""
    for seed in range(first, min(first + 20, HEALTHY)):
        case = healthy(seed)
        assert findings_of(case) == [], case.what


# ------------------------------------------------------------------------------ as commands


def state(save, running, name="ck.pt"):
    module = torch.nn.BatchNorm2d(len(running.running_mean))
    module.running_mean = torch.tensor(running.running_mean, dtype=torch.float32)
    module.running_var = torch.tensor(running.running_var, dtype=torch.float32)
    module.num_batches_tracked += running.num_batches_tracked
    return f"{save(name, {f'bn.{k}': v for k, v in module.state_dict().items()})}::bn"


def codes(result):
    assert result.stderr == ""
    return {item["code"] for item in result.report["findings"]}


def test_compute_says_it_where_stored_statistics_normalise(run, save, running):
    x = save("x.npy", images(seed=5).astype(np.float32))
    good = state(save, running)
    wrong = state(save, replace(running, running_var=running.running_var * 100), "wrong.pt")
    flags = ("compute", x, "-f", "json", "--fail-on", "warning", "--state")
    assert codes(run(*flags, good, "--eval")) == set()
    result = run(*flags, wrong, "--eval")
    assert (result.code, codes(result)) == (1, {"BN013"})
    assert codes(run(*flags, wrong)) == set()  # the batch normalises
    assert codes(run(*flags, wrong, "--eval", "--no-track-running-stats")) == set()
    assert codes(run("compute", x, "--eval", "-f", "json")) == {"BN005"}
    channels_last = save("last.npy", np.moveaxis(images(seed=5), 1, -1).astype(np.float32))
    last = ("compute", channels_last, "--channel-axis=-1", "-f", "json", "--eval", "--state", wrong)
    assert codes(run(*last)) == {"BN013"}


def test_padding_that_took_part_in_the_statistics(run, save):
    """Sequences padded with 0, frames as rows: real frames lie off in every channel."""
    torch.manual_seed(0)
    steps, number, width = 50, 8, 12
    lengths = torch.linspace(10, 50, number).long()
    x = torch.randn(steps, number, width) * 1.5 + 2
    for n in range(number):
        x[lengths[n] :, n] = 0
    module = torch.nn.BatchNorm1d(width)
    for _ in range(300):
        module(x.reshape(-1, width))
    layer = f"{save('ck.pt', {f'bn.{k}': v for k, v in module.state_dict().items()})}::bn"
    frames = torch.cat([x[: lengths[n], n] for n in range(number)]).numpy()
    flags = ("--state", layer, "--eval", "-f", "json")
    result = run("compute", save("frames.npy", frames), *flags)
    (finding,) = result.report["findings"]
    assert finding["code"] == "BN013"
    assert finding["evidence"]["channels"] == list(range(width))
    assert min(map(abs, finding["evidence"]["mean_off_in_std"])) > 0.3
    padded = save("padded.npy", x.reshape(-1, width).numpy())
    assert codes(run("compute", padded, *flags)) == set()


def test_an_epoch_that_a_few_outlier_batches_spoiled(run, save):
    torch.manual_seed(0)
    module = torch.nn.BatchNorm2d(4)
    layers = []
    for epoch in range(3):
        for step in range(60):
            x = torch.from_numpy(images(number=8, seed=60 * epoch + step)).float()
            module(x * 60 + 40 if epoch == 1 and step >= 57 else x)
        values = {f"bn.{k}": v.clone() for k, v in module.state_dict().items()}
        layers.append(f"{save(f'epoch{epoch}.pt', values)}::bn")
    x = save("x.npy", images(seed=999).astype(np.float32))
    found = [codes(run("compute", x, "--state", at, "--eval", "-f", "json")) for at in layers]
    assert found[:2] == [set(), {"BN013"}]


def test_inputs_that_are_sorted_are_what_chance_is_reckoned_from(run, save):
    """Two inputs of two domains, trained on both: the population lies between them."""

    def domain(level, seed):
        return images(seed=seed) + level

    running = trained(lambda seed: domain(6 * (-1) ** seed, seed), steps=200)
    inputs = [save(f"{i}.npy", domain(6 * (-1) ** i, i).astype(np.float32)) for i in range(3)]
    flags = ("--state", state(save, running), "--eval", "-f", "json")
    assert codes(run("compute", *inputs, *flags)) == {"BN010"}
