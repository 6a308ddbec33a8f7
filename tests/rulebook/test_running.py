"""BN7xx: healthy simulations are not blamed, and the borders are where they are said to be."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.rulebook.running import one_value_findings
from bncli.running_stats.frameworks import convention
from bncli.running_stats.scatter import MOST_APART
from tests.conftest import parse_strictly
from tests.sampling import some


def codes(result):
    assert result.stderr == ""
    return {item["code"] for item in result.report["findings"]}


def finding(result, code):
    (found,) = [item for item in result.report["findings"] if item["code"] == code]
    return found


@pytest.mark.parametrize("shape", ["16,8", "4,3,5", "8,4,6,6", "2,3,2,2,2"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("seeds", some(range(3), 1), ids=str)
def test_healthy_batches_are_not_blamed(run, shape, dtype, seeds):
    flags = ("simulate-ema", "--generate", shape, "--batches", 60, "--buffer-dtype", dtype)
    for seed in seeds:
        assert codes(run(*flags, "--seed", seed, "-f", "json")) == set()


@pytest.mark.parametrize("row", ["keras3", "flax", "tinygrad", "onnx", "caffe", "chainer"])
def test_defaults_of_other_frameworks_are_not_blamed(run, row):
    flags = ("simulate-ema", "--generate", "16,3", "--batches", 50, "--convention", row)
    assert codes(run(*flags, "--epochs", 20, "-f", "json")) == set()


@pytest.mark.parametrize(
    ("convention", "momentum", "blamed"),
    [
        ("pytorch", "0.5", False),
        ("pytorch", "0.51", True),
        ("pytorch", "1", True),
        ("pytorch", "none", False),
        ("keras3", "0.1", True),
        ("keras3", "0.5", False),
        ("keras3", "0.9", False),
        ("tf-v1", "1", False),  # its default: the caller keeps the average
    ],
)
def test_an_inverted_momentum(run, convention, momentum, blamed):
    result = run(
        "simulate-ema", "--generate", "16,3", "--convention", convention, "--momentum", momentum,
        "-f", "json",
    )  # fmt: skip
    assert ("BN701" in codes(result)) == blamed


def test_the_momentum_that_was_meant(run):
    flags = ("simulate-ema", "--generate", "16,3", "-f", "json", "--momentum")
    evidence = finding(run(*flags, "0.99"), "BN701")["evidence"]
    assert evidence == {"momentum": 0.99, "new_weight": 0.99, "meant": 0.01}
    result = run(*flags, "0.1", "--convention", "keras3")
    assert finding(result, "BN701")["evidence"]["meant"] == 0.9
    inverted = finding(result, "BN701")
    assert inverted["message"] == (
        "in keras3, momentum 0.1 gives the newest batch 90% of the weight"
    )
    assert inverted["detail"] == "The average spans 1.22 batches."
    assert inverted["hint"] == "If 0.1 follows the convention of pytorch, use 0.9 in keras3."
    last = finding(run(*flags, "1"), "BN701")
    assert last["detail"] == "The average spans 1 batch."
    assert "as in" not in last["hint"]  # another framework's 1 would not update at all


@pytest.mark.parametrize(("batches", "blamed"), [(43, True), (44, False)])
def test_the_initial_value_by_1_percent(run, batches, blamed):
    result = run("simulate-ema", "--generate", "16,3", "--batches", batches, "-f", "json")
    assert codes(result) == ({"BN702"} if blamed else set())
    if blamed:
        assert finding(result, "BN702")["evidence"]["initial_weight"] == pytest.approx(0.9**43)


def test_an_initial_weight_below_0_and_one_that_grows(run, save):
    x = save("x.npy", np.random.default_rng(0).normal(size=(16, 3)))
    flags = ("simulate-ema", x, "-f", "json")
    below = run(*flags, "--momentum", 1.5)
    assert codes(below) == {"BN007", "BN702"}
    assert finding(below, "BN702")["evidence"]["initial_weight"] == -0.5
    assert codes(run(*flags, "--momentum=-0.1")) == {"BN007"}


@pytest.mark.parametrize("convention", ["haiku", "caffe", "equinox"])
def test_a_debiased_average_has_no_initial_value(run, convention):
    flags = ("--convention", convention, "--momentum", "0.9", "-f", "json")
    assert codes(run("simulate-ema", "--generate", "16,3", "--batches", 3, *flags)) == set()


def test_shuffled_batches_of_many_channels_are_not_blamed(run):
    for shape, batches in (("4,500", 3), ("2,500", 40), ("64,500", 2)):
        flags = ("--generate", shape, "--batches", batches, "--epochs", 30)
        result = run("simulate-ema", *flags, "-f", "sarif")  # JSON would be 40 MB of trajectories
        assert (result.code, result.stderr) == (0, "")
        (log,) = parse_strictly(result.stdout)["runs"]
        assert log["results"] == [], shape


def test_pixels_that_go_together_are_not_blamed_on_the_order(run, save):
    """Images with a brightness of their own, shuffled and sorted."""
    rng = np.random.default_rng(0)
    brightness = np.sort(rng.normal(0, 3, 400))
    x = rng.normal(size=(400, 2, 6, 6)) + brightness[:, None, None, None]
    flags = ("--batch-size", 8, "-f", "json")
    in_order = run("simulate-ema", save("x.npy", x), *flags)
    assert codes(in_order) == {"BN703"}
    assert min(finding(in_order, "BN703")["evidence"]["f_ratio"]) > MOST_APART
    assert codes(run("simulate-ema", "x.npy", *flags, "--shuffle")) == set()


@pytest.mark.parametrize("batches", [2, 3, 6, 12])
def test_sorted_images_are_seen_at_any_number_of_batches(run, save, batches):
    """Smooth images of two domains, and the same ones shuffled."""
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(batches * 16, 3, 8, 8)), 3) / 4
    x += rng.normal(size=(len(x), 3, 1, 1))
    x[: len(x) // 2, 1] += 8
    flags = ("--batch-size", 16, "--momentum", "none", "-f", "json")
    in_order = run("simulate-ema", save("x.npy", x), *flags)
    evidence = finding(in_order, "BN703")["evidence"]
    assert evidence["channels"] == [1]
    assert evidence["by"] == "samples"
    assert evidence["f_ratio"][0] > evidence["border"] >= MOST_APART
    assert finding(in_order, "BN703")["severity"] == "warning"
    assert codes(run("simulate-ema", "x.npy", *flags, "--shuffle", "--seed", 1)) == set()


def test_a_table_of_statistics_knows_no_samples(run, save):
    """Shuffled images with a brightness of their own: their values are not independent, so the
    finding is only a note.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 4, 2, 100)) * 0.1 + rng.normal(size=(20, 4, 2, 1))
    np.savez("t.npz", mean=x.mean((1, 3)), var=x.var((1, 3)), count=np.int64(400))
    flags = ("--momentum", "none", "-f", "json")
    by_value = finding(run("simulate-ema", "t.npz", *flags), "BN703")
    assert (by_value["severity"], by_value["evidence"]["by"]) == ("info", "values")
    assert by_value["certainty"] == "likely"
    assert "what independent values would show" in by_value["message"]
    x = save("x.npy", x.reshape(80, 2, 100))
    assert codes(run("simulate-ema", x, "--batch-size", 4, *flags)) == set()


def test_channels_first_of_all_leave_no_samples_to_tell(run, save):
    """(C, H, W): the rows of an image are not samples."""
    rng = np.random.default_rng(0)
    for i in range(4):
        save(f"{i}.npy", rng.normal(size=(2, 8, 8)) * 0.01 + rng.normal(size=(2, 1, 1)))
    flags = ("--channel-axis", 0, "--momentum", "none", "-f", "json")
    found = finding(run("simulate-ema", *(f"{i}.npy" for i in range(4)), *flags), "BN703")
    assert (found["severity"], found["evidence"]["by"]) == ("info", "values")


@pytest.mark.parametrize(("mean", "var", "trained"), [(0.5, 2.0, True), (0.0, 1.0, False)])
def test_a_trained_state_is_no_initial_value(run, save, mean, var, trained):
    import torch

    module = torch.nn.BatchNorm1d(2)
    module.running_mean.fill_(mean)
    module.running_var.fill_(var)
    ck = save("ck.pt", {f"bn.{k}": v for k, v in module.state_dict().items()})
    flags = ("simulate-ema", "--generate", "16,2", "--batches", 4, "--state", f"{ck}::bn")
    result = run(*flags, "-f", "json")
    found = finding(result, "BN702")
    assert found["evidence"] == {"initial_weight": pytest.approx(0.9**4), "updates": 4}
    assert ("the state you started from" in found["message"]) == trained
    assert ("the state you started from" in result.report["verdict"]) == trained
    assert ("initial value" in found["message"] + result.report["verdict"]) == (not trained)
    assert found["message"].startswith("66% of each statistic is still the ")
    assert found["message"].endswith("after 4 updates")


@pytest.mark.parametrize("shape", [(8, 2), (8, 2, 3)])
def test_batches_that_are_constant_each_are_not_shuffled(run, save, shape):
    """The samples of a batch have one mean, so that shuffled batches would leave nothing."""
    x = np.repeat(np.arange(10.0), 8).reshape(10, 8, *(1,) * (len(shape) - 1)) + np.zeros(shape)
    result = run("simulate-ema", save("x.npy", x), "--batch-axis", 0, "--epochs", 5, "-f", "json")
    assert codes(result) == {"BN703"}
    assert (
        "is infinitely many times what shuffled samples would show"
        in finding(result, "BN703")["message"]
    )


def test_a_constant_channel_is_not_unshuffled(run, save):
    x = np.full((39, 4), [0.1, 1 / 3, 12345.678, 0.0])
    flags = ("--batch-size", 8, "--epochs", 10, "-f", "json")
    assert codes(run("simulate-ema", save("x.npy", x), *flags)) == set()


def test_frozen_steps_take_a_batch_with_one_value(run, save):
    x = save("x.npy", np.random.default_rng(0).normal(size=(9, 3)))
    flags = ("simulate-ema", x, "--batch-size", 4, "--momentum", "none", "-f", "json")
    assert codes(run(*flags, "--freeze-after", 2)) == set()
    assert codes(run(*flags, "--freeze-after", 3)) == {"BN704"}
    assert codes(run(*flags, "--freeze-after", 5, "--epochs", 2)) == {"BN704"}


def test_one_value_is_an_error_only_where_it_is_one(run, save):
    x = save("x.npy", np.random.default_rng(0).normal(size=(401, 3)))
    flags = ("simulate-ema", x, "--batch-size", 4, "-f", "json")
    assert codes(run(*flags)) == {"BN704"}
    found = finding(run(*flags), "BN704")
    assert found["message"] == "401 samples in batches of 4 leave a last batch of 1 sample"
    assert found["detail"] == "The convention pytorch refuses such a batch, here after counting it."
    assert found["evidence"] == {
        "batches": [100], "number": 1, "samples": 401,
    }  # fmt: skip
    assert codes(run(*flags, "--convention", "keras3", "--momentum", "0.9")) == set()
    other = run(*flags, "--convention", "tinygrad")
    assert codes(other) == {"BN704", "BN706"}
    assert (
        finding(other, "BN704")["detail"]
        == "The convention tinygrad computes 0/0 for such a batch."
    )
    assert codes(run(*flags, "--drop-last")) == set()


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([4], "batch 5 of 9 has one value per channel"),
        ([2, 4], "2 of 9 batches have one value per channel, the first is batch 3"),
    ],
)
def test_batches_with_one_value_are_numbered_from_1(batches, said):
    rows = [convention("pytorch"), convention("tinygrad")]
    (found,) = one_value_findings(rows, batches, 9, None, None)
    assert found.message == said
    (nan,) = one_value_findings([rows[1], convention("candle")], batches, 9, None, None)
    assert nan.detail == "The conventions tinygrad, candle compute 0/0 for such a batch."
    assert one_value_findings([convention("keras3")], batches, 9, None, None) == []


def test_float32_does_not_stall_where_bfloat16_does(run):
    flags = ("simulate-ema", "--generate", "64,2", "--batches", 100, "--epochs", 10)
    flags += ("--momentum", "0.01", "-f", "json", "--buffer-dtype")
    assert codes(run(*flags, "bfloat16")) == {"BN705"}
    assert codes(run(*flags, "float32")) == set()


def test_an_overflow_of_float16_is_not_a_stall(run, save):
    x = np.random.default_rng(0).normal(0, 400, (64, 2))
    flags = ("--batch-size", 8, "--epochs", 20, "--buffer-dtype", "float16", "-f", "json")
    result = run("simulate-ema", save("x.npy", x), *flags)
    assert codes(result) == {"BN706"}
    assert "it is inf in channels 0 and 1" in finding(result, "BN706")["message"]
    assert finding(result, "BN706")["detail"] == ""  # the input is finite


def test_what_an_infinite_variance_leaves_is_the_bias():
    """As the rule says; PyTorch is asked."""
    import torch

    module = torch.nn.BatchNorm1d(1).eval()
    module.running_var.fill_(float("inf"))
    with torch.no_grad():
        assert module(torch.tensor([[3.0], [-2.0]])).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("dtype", "momentum", "stops"), [("bfloat16", 0.001, 0.5), ("float16", 0.1, 0.998)]
)
def test_where_half_precision_stops_on_its_way_to_1(dtype, momentum, stops):
    """The figures that BN705 names, by PyTorch."""
    import torch

    module = torch.nn.BatchNorm1d(1, momentum=momentum).to(getattr(torch, dtype))
    x = torch.tensor([[0.0], [2.0]], dtype=getattr(torch, dtype))
    for _ in range(2000):
        module(x)
    assert float(module.running_mean) == pytest.approx(stops, abs=5e-4)


def test_a_momentum_outside_0_to_1(run):
    flags = ("simulate-ema", "--generate", "16,3", "--batches", 20, "-f", "json")
    result = run(*flags, "--momentum", "2.5")
    assert codes(result) == {"BN007", "BN706"}
    assert finding(result, "BN706")["evidence"]["step"] >= 1
    assert result.code == 1
