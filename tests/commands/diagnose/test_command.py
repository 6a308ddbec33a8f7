"""`bncli diagnose`: a small model with one fault, from its code and from a statistics file."""

from __future__ import annotations

import csv
import io
import re
import shutil
import sys

import numpy as np
import pytest
import torch

from bncli.errors import ExitCode
from tests.commands.diagnose.conftest import CALL
from tests.live.small import by_hand, gap_by_hand, renewed_by_hand

KEYS = {
    "name", "order", "channels", "values", "batches", "z_max", "z_median", "var_ratio_min",
    "var_ratio_max", "noise", "predicted_error", "flags",
}  # fmt: skip
EXAMPLE = "examples/diagnose/stats.npz"


def row(report, name: str, table: str = "layers", key: str = "name") -> dict:
    (found,) = [row for row in report["tables"][table] if row[key] == name]
    return found


# ------------------------------------------------------------------ a model


def test_the_layer_and_the_cause(diagnosed, spoilt, net):
    """The spoilt layer is named, with the numbers that plain PyTorch gives."""
    report = diagnosed("spoilt.pth")
    facts = report["facts"]
    assert facts["cause"] == "statistics-of-one-layer-spoilt"
    assert (facts["layers"], facts["batches"]) == (3, 10)
    gap, floor = gap_by_hand(spoilt, net), gap_by_hand(renewed_by_hand(spoilt, net), net)
    assert facts["gap"] == pytest.approx(gap, rel=1e-4)
    assert facts["gap_floor"] == pytest.approx(floor, rel=1e-3)
    assert facts["ratio"] == pytest.approx(gap / floor, rel=1e-3)
    layers = report["tables"]["layers"]
    assert [each["name"] for each in layers] == ["bn1", "bn2", "bn3"]
    assert set(layers[0]) >= KEYS
    assert [each["order"] for each in layers] == [1, 2, 3]
    bn2 = layers[1]
    assert bn2["flags"] == "BN808"
    assert bn2["values"] == 80 * 4 * 4
    # The variance is 25 times too large, so that the output has a fifth of its spread.
    weight = spoilt.bn2.weight.detach().numpy()
    assert bn2["predicted_error"] == pytest.approx(0.8 * np.sqrt((weight**2).mean()), rel=0.02)
    assert bn2["var_ratio_max"] == pytest.approx(1 / 25, rel=0.02)
    assert layers[0]["flags"] is layers[2]["flags"] is None
    assert max(layers[0]["predicted_error"], layers[2]["predicted_error"]) < 0.1


def test_what_is_tried_by_hand(diagnosed, spoilt, net):
    """closes = (gap - new gap) / (gap - floor), with the data's statistics in that layer alone."""
    report = diagnosed("spoilt.pth")
    gap, floor = report["facts"]["gap"], report["facts"]["gap_floor"]
    alone = row(report, "bn2 alone", "tried", "what")
    assert (alone["kind"], alone["layers"], alone["metric"]) == ("one", ["bn2"], None)
    new = gap_by_hand(renewed_by_hand(spoilt, net, ["bn2"]), net)
    assert alone["gap"] == pytest.approx(new, rel=1e-3)
    assert alone["closes"] == pytest.approx((gap - new) / (gap - floor), rel=1e-3)
    assert row(report, "bn2")["closes"] == alone["closes"] == report["facts"]["closes"]
    assert row(report, "all 3 layers", "tried", "what")["closes"] == pytest.approx(1, abs=0.01)
    assert report["remarks"][1] == (
        f"new statistics in bn2 alone bring the gap to {new:.3g} (closing {alone['closes']:.0%} of "
        "the gap above its floor)"
    )


def test_how_much_is_tried(diagnosed, spoilt):
    assert diagnosed("spoilt.pth", "--try=0")["tables"]["tried"] == []
    few = diagnosed("spoilt.pth", "--try=1")["tables"]["tried"]
    assert [each["kind"] for each in few].count("one") == 1


def test_the_report_on_a_screen(run, spoilt):
    """What is wrong, the layer, the gap and the verdict, on a screen of 24 lines."""
    text = run(*CALL, "--checkpoint=spoilt.pth", "--width", 80).stdout
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[:2] == [
        "net.py:Net  spoilt.pth  3 BatchNorm layers, 19 channels",
        "*.pt  10 batches, 80 samples",
    ]
    assert lines[3].startswith("warning[BN808] off by 0.83")
    assert "  --> spoilt.pth::bn2" in lines
    heading = lines.index(next(line for line in lines if line.startswith("layer  ")))
    assert re.split(" {3,}", lines[heading]) == [
        "layer", "stored mean, var", "data mean, var", "off by", "closes", "findings"
    ]  # fmt: skip
    assert lines[heading + 1].startswith("bn2  ")
    assert lines[heading + 2].startswith("mean, var: of the worst channel; closes:")
    assert lines[-3].startswith("WARN  the statistics of a single layer")
    assert "new statistics in bn2 alone close" in text.replace("\n", " ")


def test_nothing_is_wrong(diagnosed, run, healthy):
    report = diagnosed("right.pth")
    assert (report["facts"]["cause"], report["findings"]) == (None, [])
    assert report["facts"]["ratio"] < 1.1
    assert report["verdict"].startswith("PASS  nothing is wrong: no layer's output is off by 0.1")
    text = run(*CALL, "--checkpoint=right.pth").stdout
    assert [line.split()[0] for line in text.splitlines()[4:7]] == ["bn3", "bn1", "bn2"]
    assert "closes" not in text.splitlines()[3]


def test_the_exit_code_follows_fail_on(run, spoilt):
    arguments = (*CALL, "--checkpoint=spoilt.pth", "--try=0")
    assert run(*arguments).code == ExitCode.OK
    assert run(*arguments, "--fail-on=warning").code == ExitCode.FINDING
    result = run(*arguments, "--fail-on=warning", "--ignore=BN808:bn2")
    assert result.code == ExitCode.OK


def test_a_baseline_knows_a_layer(run, spoilt):
    """What is known does not fail, the same in another layer does."""
    arguments = ("--try=0", "--fail-on=warning", "--baseline=known.json")
    call = (*CALL, "--checkpoint=spoilt.pth", *arguments)
    assert run(*call, "--update-baseline").code == 0
    assert run(*call).code == 0
    spoilt.bn2.running_var /= 25
    spoilt.bn3.running_var *= 25
    torch.save(spoilt.state_dict(), "spoilt.pth")
    assert run(*call).code == ExitCode.FINDING


def test_the_chart(run, spoilt):
    call = (*CALL, "--checkpoint=spoilt.pth", "--try=0", "--width", 80)
    title = "How far each layer's output is off, in standard deviations, by order of"
    assert title not in run(*call).stdout
    text = run(*call, "--chart").stdout
    assert title in text
    assert "· output off by   ─ noise" in text
    chart = run(*call, "-f", "json").report["charts"]["predicted_error"]
    assert chart["x"] == [1, 2, 3]
    assert max(chart["series"]["output off by"]) == pytest.approx(0.83, abs=0.01)


def test_a_metric(diagnosed, spoilt, net):
    """The user's number in training, in evaluation and in each trial, as PyTorch gives it."""
    report = diagnosed("spoilt.pth", "--metric=metrics.py:square")
    facts = report["facts"]
    for key, training in (("metric_training", True), ("metric_eval", False)):
        wanted = float(by_hand(spoilt, net, training=training).square().mean())
        assert facts[key] == pytest.approx(wanted, rel=1e-4)
    alone = renewed_by_hand(spoilt, net, ["bn2"])
    wanted = float(by_hand(alone, net, training=False).square().mean())
    assert row(report, "bn2 alone", "tried", "what")["metric"] == pytest.approx(wanted, rel=1e-3)
    renewed = row(report, "all 3 layers", "tried", "what")["metric"]
    assert facts["metric_renewed"] == renewed
    assert report["remarks"][2] == (
        f"metrics.py:square: training {facts['metric_training']:.4g}, evaluation "
        f"{facts['metric_eval']:.4g}, with new statistics in all layers {renewed:.4g}"
    )


def test_a_metric_that_is_not_a_number_is_null_and_said(diagnosed, spoilt):
    report = diagnosed("spoilt.pth", "--metric=metrics.py:nothing", "--try=0")
    assert report["facts"]["metric_eval"] is None
    assert "metrics.py:nothing: training NaN, evaluation NaN, with new" in report["remarks"][-1]


def test_no_word_of_better(run, spoilt):
    """Whether a smaller gap is better, nobody knows but the user."""
    for flags in ((), ("--metric=metrics.py:square",), ("-v",)):
        text = run(*CALL, "--checkpoint=spoilt.pth", *flags).stdout
        assert "better" not in text


def test_a_layer_that_no_batch_reaches_is_said(run, net, code):
    code(
        "more.py",
        """
        from torch import nn
        from tests.live.small import Net

        class More(Net):
            def __init__(self):
                super().__init__()
                self.extra = nn.BatchNorm2d(3)
        """,
    )
    result = run("diagnose", "more.py:More", "--data=0.pt", "--try=0")
    assert "\nno batch reaches extra\n" in result.stdout
    assert "\nnet.pth" not in result.stdout


def test_a_model_without_batchnorm(run, net):
    result = run("diagnose", "torch.nn:Identity", "--data=0.pt", "-f", "json")
    assert result.code == ExitCode.NOTHING
    assert result.report["verdict"] == "NOTHING  torch.nn:Identity has no BatchNorm layer"
    assert result.report["tables"] == {"layers": [], "tried": []}
    assert result.report["facts"]["cause"] is None


def test_layers_that_no_batch_reaches(run, code, save):
    code(
        "aside.py",
        """
        from torch import nn

        class Aside(nn.Module):
            def __init__(self, layers=1):
                super().__init__()
                self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(layers))

            def forward(self, x):
                return x * 2
        """,
    )
    save("x.pt", torch.ones(2, 3, 4, 4))
    for layers, said in ((1, "the BatchNorm layer"), (2, "any of the 2 BatchNorm layers")):
        result = run("diagnose", "aside.py:Aside", "--data=x.pt", f"--arg=layers={layers}")
        assert result.code == ExitCode.NOTHING
        assert f"NOTHING  no batch reaches {said} of aside.py:Aside (norms.0" in result.stdout


# ------------------------------------------------------------------ statistics files


@pytest.fixture
def stored(run, spoilt):
    """stats.npz, what bncli capture saves of the spoilt model."""
    call = ("capture", *CALL[1:], "--checkpoint=spoilt.pth", "--save-stats=stats.npz", "-q")
    assert run(*call).code == 0
    return "stats.npz"


def test_a_statistics_file_says_the_same(run, diagnosed, stored):
    """All but what needs the model, which is null."""
    live = diagnosed("spoilt.pth")
    report = run("diagnose", stored, "-f", "json").report
    assert report["facts"] == live["facts"] | {"closes": None}
    for one, other in zip(report["tables"]["layers"], live["tables"]["layers"], strict=True):
        assert one == other | {"closes": None}
    assert report["tables"]["tried"] == []
    (found,), (wanted,) = report["findings"], live["findings"]
    assert found["message"] == wanted["message"]
    text = run("diagnose", stored).stdout
    assert text.startswith("stats.npz  net.py:Net  spoilt.pth  3 BatchNorm layers")
    assert "--> stats.npz::bn2" in text
    assert "new statistics were not tried in single layers, because that needs the model" in text


def test_torch_is_not_imported_for_statistics(run_process, stored):
    probe = (
        "import sys; from bncli.cli import main; main(['diagnose', 'stats.npz', '-q']); "
        "print('torch' in sys.modules)"
    )
    assert run_process(python=["-c", probe]).stdout == "False\n"
    assert sys.modules["torch"]  # the probe could have found it


def test_files_are_merged(run, stored, folder):
    """Twice the batches, and the same statistics, however the files are named."""
    one = run("diagnose", stored, "-f", "json").report
    shutil.copy(stored, "stats2.npz")
    two = run("diagnose", stored, "stats2.npz", "-f", "json")
    assert two.report["facts"]["batches"] == 2 * one["facts"]["batches"]
    assert two.report["facts"]["gap"] == pytest.approx(one["facts"]["gap"], rel=1e-12)
    assert run("diagnose", "stats*.npz", "-f", "json").stdout == two.stdout
    text = run("diagnose", "stats*.npz").stdout
    assert text.startswith("stats.npz stats2.npz  net.py:Net")
    assert "  --> bn2\n" in text
    gone = run("diagnose", "other*.npz")
    assert tuple(gone) == (2, "", "bncli: other*.npz: no file fits this pattern.\n")


def test_a_reference_tells_whether_the_statistics_or_the_data_are_to_blame(run, stored, healthy):
    """Spoilt statistics do not fit the training data either."""
    text = run("diagnose", stored, "--reference", stored, "-f", "json").report
    (found,) = text["findings"]
    assert found["evidence"]["layer"] == "bn2"


@pytest.mark.parametrize("suffix", ["json", "csv", "md", "txt"])
def test_goldens(run, repository, monkeypatch, golden, suffix):
    """The example's statistics, in the formats that are compared word by word."""
    monkeypatch.chdir(repository)
    form = {"md": "markdown", "txt": "table"}.get(suffix, suffix)
    width = ("--width", 80) if suffix == "txt" else ()
    result = run("diagnose", EXAMPLE, "-f", form, *width)
    assert (result.code, result.stderr) == (0, "")
    golden(f"diagnose.{suffix}", result.stdout)


def test_a_number_of_the_golden_by_hand(run, repository, monkeypatch):
    """z of the first layer from the file's own arrays, by NumPy alone."""
    monkeypatch.chdir(repository)
    with np.load(EXAMPLE) as file:
        first = file["layer"] == 1
        mean, stored, var = (
            file[name][first]
            for name in ("training/mean", "state/running_mean", "state/running_var")
        )
    z = np.abs(mean - stored) / np.sqrt(var + 1e-5)
    rows = list(csv.DictReader(io.StringIO(run("diagnose", EXAMPLE, "-f", "csv").stdout)))
    assert float(rows[0]["z_max"]) == pytest.approx(z.max(), rel=1e-6)
