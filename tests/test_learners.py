"""The pages for people who learn: the training loop that checks itself, and the exercises."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812  # as PyTorch calls it

import bncli
from tests.conftest import REPOSITORY
from tests.test_docs import BLOCK
from tests.test_examples import script

TRAINING = REPOSITORY / "examples" / "training"


def added(text):
    """The lines of the page's diffs, without their signs."""
    blocks = re.findall(r"^```diff\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return ["".join(f"{line[1:]}\n" for line in block.splitlines()) for block in blocks]


def test_the_lines_that_the_page_adds_are_those_of_the_script():
    code = (TRAINING / "train.py").read_text("utf-8")
    loop, check = added((TRAINING / "README.md").read_text("utf-8"))
    assert check in code
    shown = loop.splitlines()
    lines = code.splitlines()
    where = [lines.index(line) for line in shown]
    assert where == sorted(where)


@pytest.fixture
def loop():
    """The script as a module, with a single check, at its last step."""
    loop = script(TRAINING / "train.py")
    loop.STEPS = loop.BEGIN
    return loop


def trained(loop, data):
    """The state after training, of the same beginning each time."""
    torch.manual_seed(0)
    model = loop.net()
    loop.train(model, loop.batches(0), data)
    return model


def test_a_check_changes_nothing(loop, monkeypatch):
    """Bit for bit, running statistics and counters too."""
    checked = trained(loop, loop.batches(1)).state_dict()
    monkeypatch.setattr(loop, "check", lambda *_: None)
    plain = trained(loop, None).state_dict()
    assert list(checked) == list(plain)
    assert all(torch.equal(checked[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (lambda model: model.bn1.running_var.mul_(4), "BN808"),
        (lambda model: model.conv2.weight.fill_(float("nan")), "BN804"),
    ],
    ids=["one layer's variance", "NaN"],
)
def test_a_check_stops_at_what_was_broken(loop, broken, code, monkeypatch, capsys):
    """Of a model that the same check passes before."""
    with monkeypatch.context() as patch:
        patch.setattr(loop, "check", lambda *_: None)
        model = trained(loop, None)
    loop.check(model, loop.batches(1))
    with torch.no_grad():
        broken(model)
    with pytest.raises(SystemExit, match=r"^1$"):
        loop.check(model, loop.batches(1))
    assert f"[{code}]" in capsys.readouterr().out


def test_the_checks_begin_when_the_initial_values_have_faded(loop, monkeypatch, capsys):
    """And not before, where a sound model would be stopped, with one cause for all layers."""
    checked = []
    with monkeypatch.context() as patch:
        patch.setattr(loop, "check", lambda model, _: checked.append(model))
        loop.STEPS = loop.BEGIN + 2 * loop.EVERY
        trained(loop, None)
        assert len(checked) == 3
        loop.STEPS = 10
        early = trained(loop, None)
    assert len(checked) == 3
    with pytest.raises(SystemExit):
        loop.check(early, loop.batches(1))
    said = capsys.readouterr().out
    assert said.count("[BN105]") == 1
    assert "bn1 and 1 more: " in said


def test_steps_of_an_optimiser_inside_of_the_block_are_named(loop):
    """As the page says."""
    loop.STEPS, loop.EVERY = 5, 10
    model = loop.net()
    with bncli.capture(model) as stats:
        loop.train(model, loop.batches(0), None)
    assert "BN819" in {finding.code for finding in stats.diagnose().findings}
    assert "(BN819)" in (TRAINING / "README.md").read_text("utf-8")


def test_the_page_shows_a_healthy_run_and_two_that_stop():
    """What it shows is what the script prints, says the test of all pages."""
    healthy, *stopped = BLOCK.findall((TRAINING / "README.md").read_text("utf-8"))
    assert healthy.endswith("step 300 of 300\n")
    assert ["[BN701]" in stopped[0], "divided by 255" in stopped[1]] == [True, True]
    assert all(each.endswith("$ echo $?\n1\n") for each in stopped)


EXERCISES = REPOSITORY / "examples" / "exercises"
PAGE = (EXERCISES / "README.md").read_text("utf-8")

PUBLISHED = {
    "means": (-2.3814598, -13.18038246, 1.91780462),
    "stds": (27.18502186, 34.21455511, 37.68611762),
    "running variances": (1205.42218363, 1249.80137297, 1311.43079537),
    "test means": (-0.03927354, -0.04349152, -0.10452688),
    "test stds": (1.01531428, 1.01238373, 0.97819988),
    "row means": (-59.06673243, -47.60782686, -43.31137368, -26.40991744),
    "row stds": (10.07429373, 28.39478981, 35.28360729, 4.01831507),
}
"""What the notebook prints, to 8 decimals."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder in which `exercises` was made."""
    folder = tmp_path_factory.mktemp("exercises")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        script(EXERCISES / "make.py").main()
    return folder


@pytest.fixture
def call(made, run, monkeypatch):
    """The JSON of the one call on the page that has these words, in this order."""
    monkeypatch.chdir(made)

    def report(*words):
        calls = re.findall(
            rf"^\$ bncli ({'.*'.join(map(re.escape, words))}.*)$", PAGE, re.MULTILINE
        )
        assert len(calls) == 1, calls
        flags = shlex.split(calls[0].partition(" | ")[0])
        return run(*flags, "-f", "json").report

    return report


def column(report, table, name):
    """A column of a table."""
    return [row[name] for row in report["tables"][table]]


def near(numbers, scale=1):
    """As published, which is to 8 decimals."""
    return pytest.approx([scale * number for number in numbers], rel=0, abs=5.1e-9 * scale)


def test_the_page_has_the_published_numbers():
    """All digits of each, beside what bncli prints of them."""
    for number in (number for numbers in PUBLISHED.values() for number in numbers):
        for digits in (str(number), f"{number:.6g}"):
            assert re.search(rf"(?<![\d.]){re.escape(digits)}(?!\d)", PAGE)


def test_the_first_cell_of_the_notebook(call):
    plain = call("compute exercises/a.npy -v")
    assert column(plain, "channels", "mean") == near(PUBLISHED["means"])
    assert column(plain, "channels", "std") == near(PUBLISHED["stds"])
    assert column(plain, "output", "mean") == near((0, 0, 0))
    assert column(plain, "output", "std") == near((0.99999999, 1, 1))


def test_gamma_and_beta(call):
    report = call("compute exercises/a.npy", "--weight")
    assert column(report, "output", "mean") == near((11, 12, 13))
    assert column(report, "output", "std") == near((0.99999999, 1.99999999, 2.99999999))


def test_the_running_averages_and_the_test_time(call):
    steps = call("simulate-ema", "onnx")
    assert column(steps, "steps", "running_var") == near(PUBLISHED["running variances"])
    with np.load("exercises/bn_param.npz") as kept:
        for name in ("running_mean", "running_var"):
            assert column(steps, "steps", name) == pytest.approx(kept[name], rel=1e-12)
    at_test_time = call("compute exercises/test.npy")
    assert column(at_test_time, "output", "mean") == near(PUBLISHED["test means"])
    assert column(at_test_time, "output", "std") == near(PUBLISHED["test stds"])


@pytest.mark.parametrize("words", [("identify exercises/first",), ("identify", "moving")])
def test_the_updates_are_named(call, words):
    report = call(*words)
    assert report["facts"]["confident"]
    best = report["tables"]["hypotheses"][0]
    assert (best["ddof"], best["explains"]) == (0, True)
    assert "momentum 0.1 " in report["facts"]["best"]


@pytest.mark.parametrize("name", ["backward", "alternative"])
def test_the_gradients_are_those_of_autograd(made, name):
    with np.load(made / "exercises" / f"{name}.npz") as arrays:
        x, weight, bias, upstream = (
            torch.from_numpy(arrays[each]) for each in ("x", "weight", "bias", "grad_output")
        )
        both = [arrays["graph"], arrays["paper"]]
    leaves = [each.requires_grad_() for each in (x, weight, bias)]
    F.batch_norm(x, None, None, weight, bias, training=True).backward(upstream)
    for mine in both:
        np.testing.assert_allclose(mine, leaves[0].grad, rtol=1e-9, atol=1e-12)


def test_the_trace_of_the_backward_pass(call, made):
    steps = call("trace exercises/backward.npz")["tables"]["steps"]
    values = {step["quantity"]: step["value"] for step in steps}
    with np.load(made / "exercises" / "backward.npz") as arrays:
        x, upstream = arrays["x"][:, 0], arrays["grad_output"][:, 0]
    x_hat = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
    assert values["grad_bias"] == pytest.approx(upstream.sum())
    assert values["grad_weight"] == pytest.approx(upstream @ x_hat)


def test_layer_normalisation(call):
    rows = call("compute exercises/rows.npy", "--width")
    assert column(rows, "channels", "mean") == near(PUBLISHED["row means"])
    assert column(rows, "channels", "std") == near(PUBLISHED["row stds"])
    scaled = call("compute exercises/rows.npy", "--weight")
    assert column(scaled, "output", "mean") == near((5, 5, 5, 5))
    published = (0.99999995, 0.99999999, 1, 0.99999969)
    assert column(rows, "output", "std") == near(published)
    assert column(scaled, "output", "std") == near(published, scale=3)


def test_the_population_statistics_of_algorithm_2(call):
    batches = np.load("exercises/batches.npy")
    steps = call("simulate-ema", "none")
    means, variances = batches.mean(1).mean(0), batches.var(1).mean(0) * 200 / 199
    assert column(steps, "steps", "running_mean") == pytest.approx(means)
    assert column(steps, "steps", "running_var") == pytest.approx(variances)


def test_the_layer_of_the_book_is_pytorchs_but_for_its_moving_variance(made):
    with np.load(made / "exercises" / "d2l.npz") as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files}
    mean, var = arrays["moving_mean_before"].clone(), arrays["moving_var_before"].clone()
    y = F.batch_norm(arrays["x"], mean, var, training=True)
    torch.testing.assert_close(arrays["y"], y, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(arrays["moving_mean_after"], mean)
    torch.testing.assert_close((arrays["moving_var_after"] - 0.9) * 100 / 99, var - 0.9)


def test_all_that_is_made_is_used(made):
    for path in (made / "exercises").iterdir():
        assert f"exercises/{path.name}" in PAGE
