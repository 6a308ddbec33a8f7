"""`bncli recalibrate`: the numbers are those of plain PyTorch, and nothing else changes."""

from __future__ import annotations

import csv
import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bncli.errors import ExitCode
from tests.commands.recalibrate.conftest import CALL
from tests.live.small import gap_by_hand, images, made, renewed_by_hand

STATISTICS = ("running_mean", "running_var")


def loaded(path: str) -> dict:
    return torch.load(path, weights_only=True)


def is_statistic(name: str) -> bool:
    return name.rpartition(".")[2] in STATISTICS


# ------------------------------------------------------------------ with a model


def test_the_population_is_written_and_nothing_else(recalibrated, spoilt, net):
    """Layer after layer in evaluation, as plain PyTorch finds it."""
    report = recalibrated("spoilt.pth", "--save-checkpoint=new.pth")
    facts = report["facts"]
    assert (facts["layers"], facts["changed"], facts["output"]) == (3, 3, "new.pth")
    assert (facts["outcome"], facts["verified"]) == ("helps", 3)
    renewed = renewed_by_hand(spoilt, net)
    old, new = loaded("spoilt.pth"), loaded("new.pth")
    assert list(old) == list(new)
    for name, tensor in new.items():
        if is_statistic(name):
            np.testing.assert_allclose(tensor, renewed.state_dict()[name], rtol=2e-5, atol=1e-6)
        else:
            assert torch.equal(tensor, old[name])
    assert facts["gap_before"] == pytest.approx(gap_by_hand(spoilt, net), rel=1e-4)
    assert facts["gap_after"] == pytest.approx(gap_by_hand(renewed, net), rel=1e-3)
    assert report["verdict"].startswith("PASS  3 layers of new.pth have new statistics; the gap ")
    assert report["remarks"][-1] == (
        "new.pth: 3 of 3 layers hold the new statistics; the other 16 tensors are bit for bit the "
        "old ones, and so is .data/serialization_id"
    )


def test_update_bn_gives_the_same_numbers(recalibrated, spoilt, net):
    recalibrated("spoilt.pth", "--average=batches", "--save-checkpoint=new.pth")
    torch.optim.swa_utils.update_bn(net, spoilt)
    for name, tensor in loaded("new.pth").items():
        if is_statistic(name):
            np.testing.assert_allclose(tensor, spoilt.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_training_goes_on(recalibrated, spoilt, net):
    """--average ema is what the layers' own momentum leaves after these batches."""
    recalibrated("spoilt.pth", "--average=ema", "--no-check", "--save-checkpoint=new.pth")
    spoilt.train()
    with torch.no_grad():
        for x in net:
            spoilt(x)
    for name, tensor in loaded("new.pth").items():
        if is_statistic(name):
            np.testing.assert_allclose(tensor, spoilt.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_without_a_target_it_says_what_it_would_do(recalibrated, spoilt, folder):
    before = sorted(path.name for path in folder.glob("*.*"))
    report = recalibrated("spoilt.pth")
    assert sorted(path.name for path in folder.glob("*.*")) == before
    assert (report["facts"]["output"], report["facts"]["changed"]) == (None, 3)
    assert report["verdict"].endswith(
        f"; --save-checkpoint FILE writes them ({report['facts']['bytes_changed']:,} bytes change)"
    )


def test_without_a_checkpoint_too(run, net):
    result = run(*CALL, "-f", "json")
    assert result.code == 0
    assert result.report["facts"]["bytes_changed"] is None
    assert "; --checkpoint FILE and --save-checkpoint FILE write them" in result.report["verdict"]


def test_nothing_to_repair(recalibrated, healthy):
    report = recalibrated("right.pth", "--save-checkpoint=new.pth")
    assert report["facts"]["outcome"] == "nothing to repair"
    assert report["verdict"].startswith("PASS  nothing to repair: no layer is off")
    assert report["verdict"].endswith("so nothing was written")
    assert not Path("new.pth").exists()
    report = recalibrated("right.pth", "--save-checkpoint=new.pth", "--force")
    assert report["facts"]["output"] == "new.pth"
    assert Path("new.pth").exists()


def test_nothing_to_repair_in_what_was_repaired(run, code, save):
    """Though the momentum of 0.9, which is likely to spoil them again, is still there."""
    code(
        "keras.py", "from tests.live.small import Net\n\n\ndef net():\n    return Net(momentum=0.9)"
    )
    for number, x in enumerate(batches := images(batches=10, samples=40)):
        save(f"{number}.pt", x)
    model = made(tensors=batches, momentum=0.9)
    model.bn1.running_var *= 9
    torch.save(model.state_dict(), "last.pth")
    call = ("recalibrate", "keras.py:net", "--data=?.pt", "--max-error=1")
    first = run(*call, "--checkpoint=last.pth", "--save-checkpoint=new.pth", "-f", "json")
    assert (first.code, first.report["facts"]["outcome"]) == (0, "helps")
    again = run(*call, "--checkpoint=new.pth", "-f", "json")
    assert (again.code, again.report["facts"]["outcome"]) == (0, "nothing to repair")


def test_what_does_not_help_is_not_written(recalibrated, code, spoilt):
    """The metric decides: here a greater one is asked for, and it becomes smaller."""
    code("worse.py", "def worse(output, batch):\n    return float(output.std() > 1e9)")
    flags = ("--metric=worse.py:worse", "--metric-goal=max", "--save-checkpoint=new.pth")
    report = recalibrated("spoilt.pth", *flags, code=ExitCode.FINDING)
    (finding,) = report["findings"]
    assert (finding["code"], finding["severity"]) == ("BN820", "error")
    assert report["facts"]["outcome"] == "does not help"
    assert report["facts"]["output"] is None
    assert not Path("new.pth").exists()
    report = recalibrated("spoilt.pth", *flags, "--force")
    (finding,) = report["findings"]
    assert (finding["code"], finding["severity"]) == ("BN820", "warning")
    assert finding["detail"].endswith("It was written all the same (--force).")
    assert report["verdict"].startswith("WARN  3 layers of new.pth have new statistics")


def test_the_metric_before_and_after(recalibrated, spoilt):
    report = recalibrated("spoilt.pth", "--metric=metrics.py:square")
    facts = report["facts"]
    assert facts["metric"] == "metrics.py:square"
    before, after, training = (facts[f"metric_{key}"] for key in ("before", "after", "training"))
    assert abs(after - training) < abs(before - training)
    assert report["remarks"][1] == (
        f"metrics.py:square: {before:.4g} -> {after:.4g} ({training:.4g} in training)"
    )


def test_statistics_that_are_not_finite_are_repaired(recalibrated, spoilt, net):
    spoilt.bn2.running_var.fill_(float("nan"))
    torch.save(spoilt.state_dict(), "nan.pth")
    report = recalibrated("nan.pth", "--save-checkpoint=new.pth")
    assert (report["facts"]["outcome"], report["facts"]["gap_before"]) == ("helps", None)
    assert report["tables"]["layers"][1]["var_ratio_max"] is None
    wanted = renewed_by_hand(spoilt, net).state_dict()["bn2.running_var"]
    np.testing.assert_allclose(loaded("new.pth")["bn2.running_var"], wanted, rtol=2e-5)
    report = recalibrated("nan.pth", "--metric=metrics.py:square")
    assert report["facts"]["outcome"] == "helps"


def test_only_some_layers(recalibrated, spoilt):
    report = recalibrated("spoilt.pth", "--layer=bn2", "--save-checkpoint=new.pth")
    assert (report["facts"]["layers"], report["facts"]["changed"]) == (3, 1)
    assert report["tables"]["left"] == [
        {"name": "bn1", "why": "not chosen"},
        {"name": "bn3", "why": "not chosen"},
    ]
    old, new = loaded("spoilt.pth"), loaded("new.pth")
    changed = {name for name, tensor in new.items() if not torch.equal(tensor, old[name])}
    assert changed == {"bn2.running_mean", "bn2.running_var"}


def test_frozen_layers_change_only_where_they_are_named(recalibrated, spoilt):
    report = recalibrated("spoilt.pth", "--frozen=bn1")
    assert report["tables"]["left"] == [{"name": "bn1", "why": "frozen"}]
    assert "left alone: 1 layer is frozen (bn1)" in report["remarks"]
    report = recalibrated("spoilt.pth", "--frozen=bn1", "--layer=bn1", "--layer=bn2")
    assert [row["name"] for row in report["tables"]["layers"]] == ["bn1", "bn2"]
    report = recalibrated("spoilt.pth", "--frozen=*", code=ExitCode.NOTHING)
    assert report["verdict"] == "NOTHING  no layer changes: 3 layers are frozen (bn1, bn2 and bn3)"


@pytest.mark.parametrize(("counter", "wanted"), [("keep", 1000), ("batches", 10), ("7", 7)])
def test_the_counter(recalibrated, spoilt, counter, wanted):
    recalibrated("spoilt.pth", f"--counter={counter}", "--save-checkpoint=new.pth")
    new = loaded("new.pth")
    assert {int(new[f"bn{n}.num_batches_tracked"]) for n in (1, 2, 3)} == {wanted}


def test_the_report_fits_a_screen(run, spoilt):
    text = run(*CALL, "--checkpoint=spoilt.pth", "--width", 80).stdout
    lines = text.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert lines[:2] == [
        "net.py:Net  spoilt.pth  3 BatchNorm layers, 19 channels",
        "*.pt  10 batches, 80 samples",
    ]
    assert lines[4].startswith("bn2  ")  # the one that was spoilt


# ------------------------------------------------------------------ without a model


def test_from_a_statistics_file(run, captured, net, monkeypatch):
    """The training propagation's population; torch is not imported."""
    flags = ("--checkpoint=spoilt.pth", "--max-error=1", "--save-checkpoint=new.pth")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", None)
        result = run("recalibrate", "--stats=stats.npz", *flags, "-f", "json")
    assert (result.code, result.stderr) == (0, "")
    facts = result.report["facts"]
    assert (facts["propagation"], facts["outcome"], facts["verified"]) == ("training", None, 3)
    assert result.report["verdict"] == "3 layers of new.pth have new statistics"
    new = loaded("new.pth")
    values = captured.conv1(torch.cat(net)).detach().double().transpose(0, 1).flatten(1)
    np.testing.assert_allclose(new["bn1.running_mean"], values.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(new["bn1.running_var"], values.var(1), rtol=1e-5, atol=1e-6)


def test_parts_in_any_order_give_the_same_bytes(run, net, spoilt):
    for number in (0, 1):
        shutil.copy(f"{number}.pt", f"part{number}.pt")
        data = f"--data=part{number}.pt"
        flags = ("--checkpoint=spoilt.pth", f"--save-stats=s{number}.npz")
        assert run("capture", "net.py:Net", data, *flags).code == 0
    for target, parts in (("a.pth", ("s0.npz", "s1.npz")), ("b.pth", ("s1.npz", "s0.npz"))):
        stats = [f"--stats={part}" for part in parts]
        flags = ("--checkpoint=spoilt.pth", "--max-error=1", f"--save-checkpoint={target}")
        assert run("recalibrate", *stats, *flags).code == 0
    assert Path("a.pth").read_bytes() == Path("b.pth").read_bytes()


def test_statistics_of_other_weights_are_refused(run, captured):
    state = captured.state_dict()
    state["conv2.weight"] = state["conv2.weight"] + 1
    torch.save(state, "other.pth")
    flags = ("--checkpoint=other.pth", "--max-error=1", "--save-checkpoint=new.pth")
    result = run("recalibrate", "--stats=stats.npz", *flags)
    assert tuple(result)[:2] == (2, "")
    assert "other weights" in result.stderr
    assert not Path("new.pth").exists()


EXAMPLE = ("--stats=examples/diagnose/stats.npz", "--max-error=0.1")


@pytest.mark.parametrize("suffix", ["json", "csv", "md", "txt"])
def test_goldens(run, repository, monkeypatch, golden, suffix):
    """The example's statistics for its checkpoint, in the formats that are compared by word."""
    monkeypatch.chdir(repository)
    form = {"md": "markdown", "txt": "table"}.get(suffix, suffix)
    width = ("--width", 80) if suffix == "txt" else ()
    checkpoint = "--checkpoint=examples/diagnose/unet.pth"
    result = run("recalibrate", *EXAMPLE, checkpoint, "-f", form, *width)
    assert (result.code, result.stderr) == (0, "")
    golden(f"recalibrate.{suffix}", result.stdout)


def test_a_number_of_the_golden_by_hand(run, repository, monkeypatch):
    """z of the first layer from the file's own arrays, by NumPy alone."""
    monkeypatch.chdir(repository)
    with np.load("examples/diagnose/stats.npz") as file:
        first = file["layer"] == 1
        mean, stored, within, between = (
            file[name][first]
            for name in (
                *("training/mean", "state/running_mean"),
                *("training/within", "training/between"),
            )
        )
    rows = list(csv.DictReader(io.StringIO(run("recalibrate", *EXAMPLE, "-f", "csv").stdout)))
    var = (within + between) / (int(rows[0]["values"]) - 1)
    z = np.abs(mean - stored) / np.sqrt(var + 1e-5)
    assert float(rows[0]["z_max"]) == pytest.approx(z.max(), rel=1e-12)


@pytest.mark.parametrize("saved", [(), ("--save-checkpoint=new.pth",)])
def test_too_little_data_is_told_with_all_that_was_measured_and_not_written(run, spoilt, saved):
    del spoilt
    call = [flag for flag in CALL if not flag.startswith("--max-error")]
    result = run(*call, "--checkpoint=spoilt.pth", *saved, "-f", "json")
    report = result.report
    assert result.code == 1
    assert [each["code"] for each in report["findings"]] == ["BN821"]
    assert report["findings"][0]["hint"].startswith("Give more data, or accept this with --max-err")
    assert report["facts"]["outcome"] == "too little data"
    assert report["facts"]["gap_after"] < report["facts"]["gap_before"]
    assert report["facts"]["output"] is None
    assert not Path("new.pth").exists()


def test_too_little_data_is_written_with_force(run, spoilt):
    del spoilt
    call = [flag for flag in CALL if not flag.startswith("--max-error")]
    result = run(
        *call, "--checkpoint=spoilt.pth", "--save-checkpoint=new.pth", "--force", "-f", "json"
    )
    assert result.code == 0
    assert [each["severity"] for each in result.report["findings"]] == ["warning"]
    assert Path("new.pth").exists()


def test_stored_statistics_of_too_little_data_are_not_written(run, captured):
    del captured
    flags = ("--stats=stats.npz", "--checkpoint=spoilt.pth", "--save-checkpoint=new.pth")
    result = run("recalibrate", *flags, "-f", "json")
    assert result.code == 1
    assert "BN821" in {each["code"] for each in result.report["findings"]}
    assert not Path("new.pth").exists()
