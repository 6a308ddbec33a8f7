"""What `bncli diff ACTUAL EXPECTED` says first: channels of a pair, tensors of two files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.commands.samples import random


def checkpoints(save, layers=60):
    """Two state dicts of BatchNorm layers, of which every second one was trained further."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(*(torch.nn.BatchNorm2d(16) for _ in range(layers)))
    for layer in net:
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.1, 3)
    save("before.pth", net.state_dict())
    for layer in list(net)[::2]:
        with torch.no_grad():
            layer.weight += 0.01 * torch.randn(16)
        layer.running_mean += 0.3 * torch.randn(16)
        layer.num_batches_tracked += 40
    net[8].running_var[3] = float("nan")
    state = net.state_dict()
    state["new.weight"] = state.pop("50.weight")
    state["52.bias"] = torch.ones(8)
    save("after.pth", state)


def test_two_checkpoints_in_at_most_40_lines_with_the_sick_tensor_first(run, save):
    checkpoints(save)
    lines = run("diff", "before.pth", "after.pth", "--width", "80").stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    assert lines[0] == "before.pth against after.pth"
    assert text.count("BN901]") == text.count("BN903]") == 1
    table = text[text.index("\ntensor ") :].splitlines()[2:]
    assert table[0].startswith("8.running_var ")
    assert "not finite" in table[0]
    assert not any("num_batches_tracked" in line for line in table[:8])
    for name in ("50.weight", "new.weight", "52.bias"):
        assert name in text
    words = " ".join(text.split())
    assert "are num_batches_tracked, by up to 40" in words
    differing = 30 + 30 + 30 + 1 - 1  # weights, means, counters and the NaN; 50.weight has gone
    assert f"FAIL {differing} of 298 tensors differ, 8.running_var most" in words
    assert f"{298 - differing} tensors are identical" in words


def test_json_and_v_keep_every_tensor(run, save):
    checkpoints(save)
    result = run("diff", "before.pth", "after.pth", "-f", "json")
    rows = result.report["tables"]["differences"]
    assert len(rows) == 298
    assert rows[0]["quantity"] == "8.running_var"
    assert run("diff", "before.pth", "after.pth", "-v", "--width", "200").stdout.count("\n") > 298


def test_identical_checkpoints_need_no_table(run, save):
    checkpoints(save, 2 * 30)
    assert run("diff", "before.pth", "before.pth").stdout.splitlines() == [
        "before.pth against before.pth",
        "300 tensors, rtol and atol by dtype (as torch.testing.assert_close)",
        "",
        "PASS  all 300 tensors, 3900 values, are equal",
    ]


def test_tensors_that_agree_are_told_from_those_that_are_identical(run, save):
    save("a.npz", same=random(2, 3), near=random(2, 3), far=random(2, 3))
    save("b.npz", same=random(2, 3), near=random(2, 3) + np.float32(1e-7), far=random(2, 3) + 1)
    shown = run("diff", "a.npz", "b.npz").stdout
    assert "1 tensor is identical, 1 agrees within the tolerance" in shown
    assert shown.splitlines()[-1].startswith("FAIL  1 of 3 tensors differs, far; 1 error")


def test_one_pair_says_the_worst_channel_and_lists_the_others(run, save):
    expected = random(8, 30, 4)
    actual = expected.copy()
    actual[:, 3] += 0.5
    actual[2, :25, 1] += 0.25
    save("a.npy", actual)
    save("b.npy", expected)
    result = run("diff", "a.npy", "b.npy", "-f", "json")
    (finding,) = result.report["findings"]
    assert finding["message"] == "56 of 960 values differ from b.npy, by up to 0.75"
    std = expected[:, 3].astype("f8").std()
    assert f"The worst is channel 3, off by 0.75, {0.75 / std:.3g} std:" in finding["detail"]
    assert "at (2, 3, 1), where b.npy has" in finding["detail"]
    lines = run("diff", "a.npy", "b.npy", "--width", "80").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    first = next(i for i, line in enumerate(lines) if line.startswith("channel "))
    assert lines[first + 1].split()[:2] == ["3", "0.75"]
    assert len(lines[first + 1 : lines.index("", first)]) == 21
    words = " ".join(lines)
    assert "5 more channels differ, by at most 0.25; 5 more channels agree (-v lists them)" in words


@pytest.mark.parametrize(
    ("tolerance", "said"),
    [
        ((), "rtol 1.3e-06, atol 1e-05 (as torch.testing.assert_close)"),
        (("--rtol", 0, "--atol", 0.5), "rtol 0, atol 0.5"),
    ],
)
def test_the_subject_says_how_closely(run, save, tolerance, said):
    save("x.npy", random(4, 3))
    lines = run("diff", "x.npy", "x.npy", *tolerance).stdout.splitlines()
    assert lines == [
        "x.npy against x.npy  float32 (4, 3)",
        f"channels on axis 1, {said}",
        "",
        "PASS  all 12 values are equal",
    ]


def test_what_agrees_shows_its_channels(run, save):
    x = random(4, 3)
    save("x.npy", x)
    save("y.npy", x + np.float32(1e-6))
    shown = run("diff", "x.npy", "y.npy").stdout
    assert "of its tolerance" in shown.splitlines()[-1]
    assert "0 of 4" in shown


def test_nan_on_one_side_is_said(run, save):
    x = random(4, 3)
    save("x.npy", x)
    x[1, 2] = np.nan
    save("y.npy", x)
    (finding,) = run("diff", "x.npy", "y.npy", "-f", "json").report["findings"]
    assert finding["message"] == ("1 of 12 values differs from y.npy: only EXPECTED has NaN there")


def test_layers_of_other_names_are_for_compare_checkpoints(run, save):
    leaves = ("weight", "bias", "running_mean", "running_var")
    for name, layer in (("a.npz", "bn1"), ("b.npz", "features.1")):
        save(name, **{f"{layer}.{leaf}": np.ones(3) for leaf in leaves})
    told = "bncli compare-checkpoints a.npz b.npz says what happened to each BatchNorm layer"
    assert told in run("diff", "a.npz", "b.npz").stdout


def test_two_empty_files_have_nothing_in_common(run, save):
    save("a.npz", x=random(2, 3), y=random(2, 3))
    save("b.npz", z=random(2, 3), w=random(2, 3))
    result = run("diff", "a.npz", "b.npz")
    assert result.code == 3
    last = result.stdout.splitlines()[-1]
    assert last.startswith("NOTHING  nothing was compared: the two have no value in common")


def test_long_names_and_no_others_still_fit(run, save):
    """As many tensors as are shown, each with a name of a real network's length."""
    names = [f"backbone.stage{n}.branch{n % 3}.1.bn.running_var" for n in range(40)]
    values = {name: random(64, seed=n) for n, name in enumerate(names)}
    save("a.pt", {name: torch.from_numpy(each) for name, each in values.items()})
    save("b.pt", {name: torch.from_numpy(each) * 1.5 for name, each in values.items()})
    lines = run("diff", "a.pt", "b.pt", "--width", "80").stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("28 more tensors differ (-v lists them)") for line in lines)


def test_tensors_without_a_partner_are_named(run, save):
    save("a.npz", **{f"a{n}": random(2) for n in range(6)}, both=random(2))
    save("b.npz", both=random(2), other=random(2))
    shown = " ".join(run("diff", "a.npz", "b.npz").stdout.split())
    assert "6 tensors: only in a.npz: a0, a1, a2, a3 and 2 more" in shown
    assert "other: only in b.npz" in shown
    assert "2 tensors could not" not in shown
    assert "7 could not be compared" in shown


@pytest.mark.parametrize(("side", "named"), [(0, "ACTUAL"), (1, "EXPECTED")])
def test_the_side_that_alone_has_nan_is_named(run, save, side, named):
    files = [random(8, 4, 3), random(8, 4, 3)]
    files[side][5, 2, 1] = np.nan
    save("a.npy", files[0])
    save("b.npy", files[1])
    result = run("diff", "a.npy", "b.npy", "--width", 100)
    assert result.code == 1
    assert f"only {named} has NaN there" in result.stdout
    assert "Find the step that made the NaN or Inf" in result.stdout
    lines = result.stdout.splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("channel "))
    assert lines[head + 1].split()[:2] == ["2", "inf"]
    assert lines[head + 2] == "3 more channels agree (-v lists them)"


def test_nan_on_both_sides_has_its_flag(run, save):
    x = random(4, 3)
    x[1, 2] = np.nan
    save("a.npy", x)
    save("b.npy", x)
    (finding,) = run("diff", "a.npy", "b.npy", "-f", "json").report["findings"]
    assert finding["message"].endswith("differs from b.npy: NaN against NaN")
    assert "--equal-nan" in finding["hint"]
    assert run("diff", "a.npy", "b.npy", "--equal-nan").code == 0


def test_the_largest_difference_is_of_values_that_differ(run, save):
    """A large value may be further off, within a tolerance that is relative."""
    expected = np.array([[1000.0, 1.0, 2.0]])
    save("a.npy", expected + np.array([[0.5, 0.004, 0.003]]))
    save("b.npy", expected)
    result = run("diff", "a.npy", "b.npy", "--rtol", 1e-3, "--atol", 1e-4, "-f", "json")
    (finding,) = result.report["findings"]
    assert finding["message"] == "2 of 3 values differ from b.npy, by up to 0.004"
    assert "by up to 0.004" in result.report["verdict"]
