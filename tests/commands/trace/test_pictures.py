"""The chain of a trace, beside what NumPy and PyTorch make of the same values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bncli.pictures import Chain, pictures_of
from tests.commands.trace.samples import steps


def links(report) -> dict:
    (chain,) = pictures_of(report)
    assert isinstance(chain, Chain)
    return {link.quantity: link for link in chain.links}


def test_the_first_channel_step_by_step(reported, tutorial):
    report = reported("trace", tutorial)
    found = links(report)
    x = np.load(tutorial)[:, 0].astype(np.float64)
    y = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    for name, value in {
        "count": 8, "mean": x.mean(), "var": x.var(), "unbiased_var": x.var(ddof=1),
        "invstd": 1 / np.sqrt(x.var() + 1e-5), "x": x[0, 0, 0], "deviation": x[0, 0, 0] - x.mean(),
        "output": y[0, 0, 0], "running_mean": 0.1 * x.mean(),
        "running_var": 0.9 + 0.1 * x.var(ddof=1),
    }.items():  # fmt: skip
        assert float(found[name].value) == pytest.approx(value, rel=1e-6)
    assert found["mean"].formula == "sum(x) / count"
    assert found["mean"].numbers == "(1 + 2 + 3 + ... + 12) / 8"
    assert (found["weight"].numbers, found["weight"].value) == ("", "1")
    assert (found["values"].numbers, found["values"].value) == ("1, 2, 3, 4, 9, 10, 11, 12", "")
    (chain,) = pictures_of(report)
    assert chain.title == "Channel 0, step by step"
    assert chain.text == (
        "Channel 0 has 8 values with mean 6.5 and variance 17.25, so that invstd, 1 / sqrt(var + "
        "eps), is 0.2407716. x[0, 0, 0, 0] = 1 becomes the output -1.324244. running_mean and "
        "running_var become 0.65 and 2.871429."
    )


def test_its_steps_are_those_of_the_table(reported, run, tutorial):
    report = reported("trace", tutorial, "--at=0,1,1", "--channel=1", "--backward")
    result = run("trace", tutorial, "--at=0,1,1", "--channel=1", "--backward", "-f", "json")
    table = {**steps(result, 1), **steps(result, 1, "backward")}
    found = links(report)
    assert [*found] == [*table]
    for name, link in found.items():
        row = table[name]
        assert link.formula == row["formula"]
        both = f"{link.numbers or link.formula} = {link.value}"
        assert row["numbers"] in (both, link.value, link.numbers)
    (chain,) = pictures_of(report)
    assert f"The gradient of x[0, 1, 1, 1] is {found['grad_input'].value}." in chain.text


def test_evaluation_says_whose_statistics_they_are(reported, tutorial, save):
    save("mean.npy", np.array([1.0, 2.0]))
    save("var.npy", np.array([4.0, 9.0]))
    report = reported(
        "trace",
        tutorial,
        "--eval",
        "--running-mean=mean.npy",
        "--running-var=var.npy",
        "--at=1,1,1,1",
    )
    (chain,) = pictures_of(report)
    assert chain.title == "Channel 1, step by step"
    module = torch.nn.BatchNorm2d(2).eval()
    module.running_mean, module.running_var = torch.tensor([1.0, 2.0]), torch.tensor([4.0, 9.0])
    y = module(torch.from_numpy(np.load(tutorial)))[1, 1, 1, 1].item()
    assert float(links(report)["output"].value) == pytest.approx(y, rel=1e-6)
    assert chain.text.startswith(
        "The 8 values of channel 1 are normalised with the stored mean 2 and variance 9, so that"
    )
    assert chain.text.endswith("running_mean and running_var stay 2 and 9.")


def test_without_stored_statistics_evaluation_takes_the_batchs(reported, tutorial):
    report = reported("trace", tutorial, "--eval", "--no-track-running-stats")
    (chain,) = pictures_of(report)
    assert chain.text.startswith("Channel 0 has 8 values with mean 6.5 and variance 17.25")
    assert "running" not in chain.text


def test_float32_has_its_own_values(reported, tutorial):
    found = links(reported("trace", tutorial, "--arithmetic=float32"))
    assert found["invstd"].value == "0.240771636"
    x = torch.from_numpy(np.load(tutorial))
    y = torch.nn.BatchNorm2d(2)(x)[0, 0, 0, 0].item()
    assert float(found["output"].value) == pytest.approx(y, rel=1e-8)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.0])
def test_odd_channels(reported, save, value):
    x = np.ones((4, 2, 3), np.float32)
    x[1, 0, 2] = value
    found = links(reported("trace", save("x.npy", x)))
    assert found["output"].value
    constant = links(reported("trace", "x.npy", "--channel=1"))
    assert (float(constant["output"].value), constant["mean"].value) == (0, "1")
