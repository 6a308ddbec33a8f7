"""In Python: two lines around a training loop, and the report of a diagnosis."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch

import bncli
from bncli.errors import ExitCode, MissingBackendError, UsageError
from bncli.report import Report
from tests.live.small import images, made


@pytest.fixture
def spoilt():
    """A net with the variance of one layer 25 times what it was."""
    net = made()
    net.bn2.running_var *= 25
    return net


def ran(net, *modes, batches=8):
    """What its layers saw in these modes."""
    with bncli.capture(net) as stats, torch.no_grad():
        for training in modes:
            net.train(training)
            for x in images(batches=batches):
                net(x)
    return stats


def frozen_momentum(net):
    """The net, whose statistics do not move in training."""
    for module in net.modules():
        if hasattr(module, "momentum"):
            module.momentum = 0.0
    return net


def test_the_report_names_the_layer(spoilt):
    report = ran(frozen_momentum(spoilt), True).diagnose()
    assert isinstance(report, Report)
    assert report.facts["layers"] == 3
    assert report.facts["modes"] == ["training"]
    rows = {row["name"]: row for row in report.tables[0].rows}
    assert rows["bn2"]["predicted_error"] > 5 * rows["bn1"]["predicted_error"]
    assert rows["bn2"]["var_ratio_max"] == pytest.approx(1 / 25, rel=0.2)
    assert [finding.subject for finding in report.findings][:1] == ["bn2"]


def test_it_prints_as_a_terminal_shows_it(spoilt, monkeypatch, run, folder):
    stats = ran(frozen_momentum(spoilt), True)
    report = stats.diagnose()
    text = str(report)
    lines = text.splitlines()
    assert "tests.live.small.Net  as it ran in Python  3 BatchNorm layers" in lines[0]
    assert text.endswith(report.verdict) or report.verdict.endswith(lines[-1])
    assert max(map(len, lines)) <= 80
    assert repr(report) == text
    monkeypatch.setenv("COLUMNS", "200")
    assert max(map(len, str(report).splitlines())) > 80
    stats.save("stats.npz")
    told = run("diagnose", "stats.npz", "-f", "json").report
    assert told["verdict"] == report.verdict
    assert [item["code"] for item in told["findings"]] == [each.code for each in report.findings]
    assert told["facts"]["cause"] == report.facts["cause"]


def test_a_healthy_net_has_a_verdict_too():
    report = ran(frozen_momentum(made(tensors=images(batches=8))), True, False).diagnose()
    assert report.exit_code() is ExitCode.OK
    assert report.word in {"PASS", "WARN"}
    assert report.facts["modes"] == ["training", "eval"]


def test_evaluation_alone_is_not_judged():
    with pytest.raises(
        UsageError, match=r"ran only in eval mode\. .* after model\.train\(\) as well"
    ):
        ran(made(), False).diagnose()


def test_weights_that_moved_are_a_finding():
    net = made().train()
    with bncli.capture(net) as stats:
        for x in images():
            net(x)
            with torch.no_grad():
                net.conv1.weight *= 1.01
    assert "BN819" in [finding.code for finding in stats.diagnose().findings]


def test_a_block_in_which_nothing_ran_has_nothing_to_check():
    with bncli.capture(made()) as stats:
        pass
    report = stats.diagnose()
    assert report.exit_code() is ExitCode.NOTHING
    assert str(report).startswith("NOTHING  no batch reaches any of the 3 BatchNorm layers")
    with bncli.capture(torch.nn.Linear(2, 2)) as stats:
        pass
    assert "Linear has no BatchNorm layer" in str(stats.diagnose())


def test_flags_go_through():
    net = made()
    with bncli.capture(net, frozen=["bn1"], per_batch=True) as stats:
        net.train()
        for x in images():
            net(x)
    assert [layer.frozen for layer in stats.capture.norms] == [True, False, False]
    assert set(stats.capture.per_batch)
    wide = stats.diagnose(train_batch_size=64).tables[0].rows
    narrow = stats.diagnose(train_batch_size=2).tables[0].rows
    assert narrow[1]["noise"] > wide[1]["noise"]


def test_findings_are_counted_as_in_a_diagnosis_of_the_command(spoilt, folder):
    del folder
    stats = ran(frozen_momentum(spoilt), True)
    plain = stats.diagnose()
    code = plain.findings[0].code
    for how in ({"ignore": code}, {"select": code, "fail_on": "warning"}, {"reference": stats}):
        mine, its = stats.diagnose(**how), bncli.diagnose(stats, **how)
        assert [each.code for each in mine.findings] == [each.code for each in its.findings]
        assert (mine.word, mine.ok) == (its.word, its.ok)
    assert code not in [each.code for each in stats.diagnose(ignore=code).findings]
    assert not stats.diagnose(select=code, fail_on="warning").ok
    stats.diagnose(baseline="known.json", update_baseline=True)
    assert not stats.diagnose(baseline="known.json").findings


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ({"data": [1]}, UsageError, "--data does not apply to what bncli.capture gives"),
        ({"metric": max}, UsageError, "--metric does not apply to what bncli.capture gives: it ne"),
        ({"ignor": "BN1"}, TypeError, "argument 'ignor'; did you mean 'ignore'"),
        ({"given": "x.npz"}, TypeError, "unexpected keyword argument 'given'"),
    ],
)
def test_what_a_diagnosis_of_a_recording_does_not_take(how, error, said):
    with pytest.raises(error, match=said):
        ran(made(), True).diagnose(**how)


def test_a_report_stays_one_when_it_is_changed():
    report = ran(frozen_momentum(made()), True).diagnose()
    assert str(replace(report, verdict="another")).endswith("another")


# ---------------------------------------------------------------------------- with data


@pytest.fixture
def files(folder):
    """The net's file, and four files of a batch each."""
    (folder / "api_net.py").write_text("from tests.live.small import made\nnet = made()\n", "utf-8")
    for number, x in enumerate(images(batches=4)):
        torch.save(x, f"x{number}.pt")
    return "api_net.py:net", "x*.pt"


def test_with_data_it_runs_the_model_as_the_command_does(files, run):
    model, data = files
    stats = bncli.capture(model, data=data, per_batch=True)
    assert repr(stats) == "<bncli.capture of Net: 3 BatchNorm layers>"
    printed = run("capture", model, "--data", data, "--save-stats", "told.npz", "-f", "json").report
    mine = stats.report.to_dict()
    assert mine["tables"] == printed["tables"]
    assert mine["facts"] == printed["facts"] | {"saved_stats": None}
    assert set(stats.capture.per_batch)
    stats.save("own.npz")
    whole, told = stats.diagnose(), bncli.diagnose("told.npz")
    assert whole.table("layers").rows == told.table("layers").rows
    assert bncli.diagnose("own.npz").table("layers") == told.table("layers")


def test_with_save_stats_it_writes_the_file_too(files, folder):
    model, data = files
    stats = bncli.capture(model, data=[data], save_stats="stats.npz", batches=2)
    assert (folder / "stats.npz").is_file()
    assert stats.report.facts["saved_stats"] == "stats.npz"
    assert {layer.seen[next(iter(layer.seen))].batches for layer in stats.capture.norms} == {2}


def test_what_has_no_layer_gives_nothing(files, folder):
    (folder / "plain.py").write_text("import torch\nnet = torch.nn.Flatten()\n", "utf-8")
    stats = bncli.capture("plain.py:net", data=files[1])
    assert stats.report.exit_code() is ExitCode.NOTHING
    assert not stats.diagnose().ok
    with pytest.raises(UsageError, match="no BatchNorm layer ran"):
        stats.save("stats.npz")


def test_what_is_for_data_alone_is_refused_without():
    with pytest.raises(UsageError, match="capture: batches is for a run over data, which is miss"):
        bncli.capture(made(), batches=2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'dat'; did you mean 'data'"):
        bncli.capture(made(), dat=[])
    with pytest.raises(UsageError, match="takes a model"):
        bncli.capture("api_net.py:net")


def test_without_pytorch_it_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingBackendError, match="PyTorch is not installed here"):
        bncli.capture(object())


def test_what_is_said_in_python_names_what_is_written_there(spoilt):
    stats = bncli.capture(spoilt, data=images(batches=2))
    assert (
        stats.report.verdict == f"{len(stats.capture.norms)} layers captured; save(FILE) keeps them"
    )
    with pytest.raises(bncli.BncliError) as missing:
        bncli.diagnose(spoilt)
    assert str(missing.value) == (
        "--data is missing: give batches, a DataLoader, a function that gives batches, or paths."
    )
    with pytest.raises(bncli.BncliError) as once:
        bncli.diagnose(spoilt, data=iter(images()))
    assert str(once.value).endswith(
        "which can be read once only; give a list or the function that makes it."
    )
    with pytest.raises(UsageError, match=r"not str. With data=... it takes a path, a class or a f"):
        bncli.capture("net.pt")
