"""The tables and charts of a simulation, beside what they are said to hold."""

from __future__ import annotations

import numpy as np
import pytest

from tests.commands.simulate_ema.samples import GENERATED, codes, steps, table


def test_the_charts_hold_what_the_table_does(run):
    result = run(*GENERATED, "--channel", 1, "-f", "json")
    chart = result.report["charts"]["running_var"]
    assert chart["x"] == [1, 2, 3, 4, 5, 6]
    assert chart["series"]["running"] == steps(result, "running_var")[:, 0].tolist()
    assert chart["series"]["batch"] == steps(result, "batch_var")[:, 0].tolist()
    (row,) = table(result, "channels")
    assert chart["series"]["population"] == [row["population_var"]] * 6


def test_how_far_a_port_is_off(run):
    """Two momenta, so that the means differ by more than roundings; the first is the measure."""
    result = run(*GENERATED, "--convention", "pytorch", "--convention", "equinox", "-f", "json")
    first, other = table(result, "conventions")[:2]
    assert (first["channel"], other["channel"], other["convention"]) == (0, 0, "equinox")
    off = (other["running_mean"] - first["running_mean"]) / first["running_var"] ** 0.5
    assert off != 0
    assert other["mean_difference"] == pytest.approx(off, rel=1e-12)
    assert other["var_ratio"] == pytest.approx(other["running_var"] / first["running_var"])
    assert other["output_ratio"] == pytest.approx(other["var_ratio"] ** -0.5)


@pytest.mark.parametrize("chosen", ["0", "1,3", "2-4"])
def test_channel_chooses_rows_and_nothing_else(run, chosen):
    flags = ("simulate-ema", "--generate", "8,5,2", "--batches", 4, "-f", "json")
    whole, some = run(*flags), run(*flags, "--channel", chosen)
    wanted = {row["channel"] for row in table(some)}
    for key in ("steps", "channels"):
        assert table(some, key) == [row for row in table(whole, key) if row["channel"] in wanted]
    assert some.report["verdict"] == whole.report["verdict"]


def test_every_step_is_a_row_up_to_a_bound_and_then_some(run):
    flags = ("simulate-ema", "--generate", "4,2", "--batches", 10, "-f", "json")
    few = table(run(*flags, "--epochs", 20))
    assert [row["step"] for row in few] == [n for n in range(1, 201) for _ in range(2)]
    many = [row["step"] for row in table(run(*flags, "--epochs", 20_000))]
    assert len(many) <= 100_000
    assert (many[0], many[-1]) == (1, 200_000)
    gaps = np.diff(sorted(set(many)))
    assert gaps[0] == 1
    assert gaps[-1] > 1


def test_every_so_many_steps_and_the_last(run):
    flags = ("simulate-ema", "--generate", "4,2", "--batches", 10, "--channel", 0, "-f", "json")
    rows = table(run(*flags, "--every", 4))
    assert [row["step"] for row in rows] == [4, 8, 10]
    whole = {row["step"]: row for row in table(run(*flags))}
    assert rows == [whole[row["step"]] for row in rows]


def test_the_plan_of_a_momentum(run):
    result = run(*GENERATED, "--reach-steps", 50, "--reach-noise", 0.01, "-f", "json")
    plan = {row["quantity"]: row["value"] for row in table(result, "plan")}
    assert plan["effective batches"] == pytest.approx(7)
    assert plan["mean age of a batch, in steps"] == pytest.approx(3)
    assert plan["S, sum of squared weights"] == pytest.approx(
        sum((0.25 * 0.75**i) ** 2 for i in range(6))
    )
    assert (1 - plan["momentum for 1% after 50"]) ** 50 == pytest.approx(0.01)
    assert 0 < plan["momentum for se 0.01, e"] < 0.01
    for row in table(result, "plan"):
        assert set(row) == {"quantity", "value", "formula"}


WEIGHTS = (0.5, 0.1, 0.05, 0.01, 0.001, 1e-6)


PUBLISHED = {
    # momentum: half-life, mean age, effective batches, steps until the initial value has each of
    # WEIGHTS, and the buffers' standard deviation in units of a batch's
    "0.3": (1.94, 2.33, 5.67, (2, 7, 9, 13, 20, 39), 0.420),
    "0.1": (6.58, 9, 19, (7, 22, 29, 44, 66, 132), 0.229),
    "0.01": (68.97, 99, 199, (69, 230, 299, 459, 688, 1375), 0.0709),
    "0.001": (692.8, 999, 1999, (693, 2302, 2995, 4603, 6905, 13809), 0.0224),
}


@pytest.mark.parametrize("momentum", PUBLISHED)
def test_the_table_of_momenta_comes_out_of_the_command(run, momentum):
    half_life, age, effective, faded, deviation = PUBLISHED[momentum]
    result = run(
        "simulate-ema", "--generate", "2,1", "--batches", 10, "--epochs", 1400, "--momentum",
        momentum, "--buffer-dtype", "float64", "-f", "json",
    )  # fmt: skip
    facts = result.report["facts"]
    plan = {row["quantity"]: row["value"] for row in table(result, "plan")}
    assert facts["half_life"] == pytest.approx(half_life, rel=2e-3)
    assert plan["mean age of a batch, in steps"] == pytest.approx(age, rel=2e-3)
    assert plan["effective batches"] == pytest.approx(effective, rel=1e-3)
    assert facts["steps_to_1_percent"] == faded[3]
    weights = steps(result, "initial_weight")[:, 0]
    assert tuple(int(np.argmax(weights <= weight)) + 1 for weight in WEIGHTS) == faded
    assert plan["S, sum of squared weights"] ** 0.5 == pytest.approx(deviation, rel=3e-3)


def test_what_the_initial_value_adds(run):
    (row, _) = table(run(*GENERATED, "--buffer-dtype", "float64", "-f", "json"), "channels")
    weight = 0.75**6
    assert row["debiased_var"] == pytest.approx((row["running_var"] - weight) / (1 - weight))
    assert row["initial_in_var"] == pytest.approx(row["running_var"] - row["debiased_var"])
    assert row["debiased_mean"] == pytest.approx(row["running_mean"] / (1 - weight))


def test_the_gap_of_unshuffled_batches(run, save):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(label, 1, (64, 2)) for label in (-2, 0, 2)])
    flags = ("--batch-size", 16, "--epochs", 10, "--momentum", "none", "-f", "json")
    flags += ("--buffer-dtype", "float64")
    unshuffled = run("simulate-ema", save("x.npy", x), *flags)
    shuffled = run("simulate-ema", "x.npy", *flags, "--shuffle")
    assert codes(unshuffled) == {"BN703"}
    assert codes(shuffled) == set()
    for row, values in zip(table(unshuffled, "channels"), x.T, strict=True):
        assert row["population_var"] == pytest.approx(values.var(), rel=1e-12)
        assert row["within_var"] + row["between_var"] == pytest.approx(values.var(), rel=1e-12)
        assert row["gap_var"] == pytest.approx(row["running_var"] - values.var(), rel=1e-9)
        assert -row["gap_var"] == pytest.approx(row["between_var"], rel=0.1)
        assert row["shuffled_between_var"] < 0.1 * row["between_var"]
    for row in table(shuffled, "channels"):
        assert abs(row["gap_var"]) < 0.2


def test_the_squared_weights_of_a_debiased_average(run):
    """Of 6 batches at 0.75: (1/4) * (3/4)**i, over what they are together."""
    result = run(*GENERATED, "--convention", "haiku", "-f", "json")
    assert result.report["facts"]["momentum"] == 0.25, result.report["facts"]
    weights = [0.75 * 0.25**i for i in range(6)]
    plan = {row["quantity"]: row for row in table(result, "plan")}
    found = plan["S, sum of squared weights"]
    assert found["value"] == pytest.approx(sum(w**2 for w in weights) / sum(weights) ** 2)
    assert found["formula"].endswith("/(1 - (1 - a)**N)**2")
    assert plan["se of running_mean, in std"]["value"] == pytest.approx(
        (found["value"] / result.report["facts"]["count"]) ** 0.5
    )
