"""What is diagnosed: a model with its data, or statistics files, and never both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bncli.loaders.statistics import write_statistics
from bncli.model.capture import Capture, Propagation
from tests.commands.diagnose.conftest import CALL
from tests.rulebook.live.captures import capture, source, watched

EVAL = Propagation.EVAL


def batches(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(1, 2, (6, 3, 4, 4)).astype(np.float32) for _ in range(8)]


@pytest.fixture
def stats(folder):
    """stats.npz, a healthy layer with the model's input."""
    data = batches()
    whole = capture(source(data), watched("bn", data))
    write_statistics("stats.npz", whole)
    return whole


def refused(result) -> str:
    """The sentence of a refusal."""
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith("bncli: ")
    assert result.stderr.count("\n") == 1
    return result.stderr.removeprefix("bncli: ").rstrip("\n")


# ------------------------------------------------------------------ which of both


def test_a_model_needs_data(run, net):
    assert refused(run("diagnose", "net.py:Net")) == (
        "--data is missing: name files of tensors, or a loader as file.py:name."
    )


def test_one_model_alone(run, net):
    said = "net.py:Net, net.py:Other: give one MODEL, or statistics files that bncli capture saved."
    assert refused(run("diagnose", "net.py:Net", "net.py:Other", "--data=0.pt")) == said


def test_statistics_files_beside_a_model(run, net, stats):
    for given in (("stats.npz", "net.py:Net"), ("net.py:Net", "stats.npz")):
        assert refused(run("diagnose", *given)) == (
            "stats.npz is a statistics file and net.py:Net is not: give one MODEL, or statistics "
            "files alone."
        )


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--data=0.pt", "--data does not apply to a statistics file; leave it out."),
        ("--checkpoint=x.pth", "--checkpoint does not apply to a statistics file; leave it out."),
        ("--frozen=bn", "--frozen does not apply to a statistics file; leave it out."),
        ("--try=0", "--try does not apply to a statistics file: it needs the model."),
        ("--metric=a.py:b", "--metric does not apply to a statistics file: it needs the model."),
    ],
)
def test_flags_that_need_the_model(run, stats, flag, said):
    assert refused(run("diagnose", "stats.npz", flag)) == said


def test_files_that_are_neither(run, net, save):
    for name, said in (
        ("gone.npz", "gone.npz: there is no such file."),
        ("0.pt", "0.pt holds tensors, and MODEL is code: name the class, such as seg.py:UNet, and"),
        ("net.py", "net.py: name the model in it, such as net.py:NAME."),
    ):
        flags = ("--data=0.pt",) if name == "net.py" else ()
        assert said in refused(run("diagnose", name, *flags))


# ------------------------------------------------------------------ statistics files


def test_a_file_without_the_training_propagation(run, stats, folder):
    alone = [replace(each, seen={EVAL: each.seen[EVAL]}) for each in stats.layers]
    write_statistics("eval.npz", replace(stats, layers=tuple(alone), outputs=()))
    assert refused(run("diagnose", "eval.npz")) == (
        "eval.npz: the model ran only in eval mode when it was made. Layers are judged by what "
        "they see in train mode: make it with bncli capture, which runs both, or in Python run a "
        "few batches after model.train() as well."
    )


def test_training_that_was_refused_is_a_finding(run, stats, folder):
    alone = [replace(each, seen={EVAL: each.seen[EVAL]}) for each in stats.layers]
    whole = replace(stats, layers=tuple(alone), outputs=(), refused_training="one value a channel")
    write_statistics("ones.npz", whole)
    report = run("diagnose", "ones.npz", "-f", "json").report
    assert "BN817" in {finding["code"] for finding in report["findings"]}
    assert report["facts"]["gap"] is None
    assert report["remarks"][0].endswith("BatchNorm cannot run in training mode on these batches")
    assert "  in eval() alone\n" in run("diagnose", "ones.npz").stdout


def test_a_file_without_layers_is_nothing(run, folder):
    write_statistics("tensor.npz", Capture((source(batches()),)))
    result = run("diagnose", "tensor.npz")
    assert result.code == 3
    assert result.stdout == "NOTHING  tensor.npz has no BatchNorm layer\n"


def test_frozen_layers_are_counted(run, stats):
    first, layer = stats.layers
    write_statistics("held.npz", replace(stats, layers=(first, replace(layer, frozen=True))))
    assert "  1 layer frozen\n" in run("diagnose", "held.npz").stdout


def test_a_reference_is_of_the_same_layers(run, stats, folder):
    data = batches(1)
    write_statistics("other.npz", capture(source(data), watched("norm", data)))
    assert refused(run("diagnose", "stats.npz", "--reference=other.npz")) == (
        "other.npz: it is not of the same model: it has no layer bn."
    )


def test_a_reference_is_a_statistics_file(run, stats, save):
    save("x.npy", np.ones(3))
    assert refused(run("diagnose", "stats.npz", "--reference=x.npy")) == (
        "x.npy: it is not a statistics file; save one with bncli capture."
    )


# ------------------------------------------------------------------ what the user's code does


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("raising", "metrics.py:17: the metric on 0.pt raised KeyError: 'label'."),
        (
            "several",
            (
                "--metric metrics.py:several: it gave a torch.Tensor of shape [8, 3], not one "
                "number; take the mean or the sum of it."
            ),
        ),
        ("words", "--metric metrics.py:words: it gave a str, not a number."),
    ],
)
def test_a_metric_that_fails(run, healthy, metric, said):
    call = (*CALL, "--checkpoint=right.pth", "--try=0", f"--metric=metrics.py:{metric}")
    assert refused(run(*call)) == said


def test_a_model_that_fails(run, net):
    said = refused(run("diagnose", "net.py:Net", "--data=0.pt", "--arg=channels=5"))
    assert "small.py:" in said
    assert "the model on 0.pt raised RuntimeError: " in said
    assert refused(run("diagnose", "net.py:Not", "--data=0.pt")).startswith("net.py: there is no")


def test_an_output_without_a_number(run, code, net):
    code(
        "labels.py",
        """
        from tests.live.small import Net

        class Labels(Net):
            def forward(self, x):
                return super().forward(x).argmax(1)
        """,
    )
    report = run("diagnose", "labels.py:Labels", "--data=0.pt", "-f", "json").report
    assert report["facts"]["gap"] is None
    assert report["tables"]["tried"] == []
    assert report["remarks"][0] == (
        "the gap between train() and eval() is not known: the output holds no floating-point tensor"
    )


def test_nan_in_the_middle_is_null_and_said(run, code, net):
    """The layer that saw it first is named, and what follows from NaN is null."""
    code(
        "logs.py",
        """
        from tests.live.small import Net

        class Logs(Net):
            def forward(self, x):
                x = self.bn1(self.conv1(x)).log()
                return self.bn2(self.conv2(x)).mean((2, 3))
        """,
    )
    result = run("diagnose", "logs.py:Logs", "--data=*.pt", "-f", "json")
    assert result.code == 1
    report = result.report
    found = report["findings"][0]
    assert (found["code"], found["subject"]) == ("BN804", "bn2")
    bn1, bn2 = report["tables"]["layers"]
    assert bn1["predicted_error"] is not None
    assert bn2["predicted_error"] is bn2["z_max"] is bn2["mean"] is None
    assert report["facts"]["gap"] is None
    assert report["remarks"][0].endswith("the outputs hold NaN or Inf")


def test_one_batch_has_no_noise(run, net):
    report = run("diagnose", "net.py:Net", "--data=0.pt", "-f", "json").report
    assert "BN816" in {finding["code"] for finding in report["findings"]}
    assert {row["noise"] for row in report["tables"]["layers"]} == {None}


def test_the_model_and_its_file_are_as_before(run, spoilt, folder):
    before = (folder / "spoilt.pth").read_bytes()
    assert run(*CALL, "--checkpoint=spoilt.pth").code == 0
    assert (folder / "spoilt.pth").read_bytes() == before


def test_ctrl_c_ends_it_with_130(run, code, save, folder):
    """In the middle of a pass; nothing is written."""
    code(
        "stopped.py",
        """
        import os, signal
        from torch import nn

        class Stopped(nn.BatchNorm2d):
            def __init__(self):
                super().__init__(3)
                self.calls = 0

            def forward(self, x):
                self.calls += 1
                if self.calls == 3:
                    os.kill(os.getpid(), signal.SIGINT)
                return super().forward(x)
        """,
    )
    save("x.pt", torch.randn(4, 3, 5, 5))
    result = run("diagnose", "stopped.py:Stopped", "--data=x.pt", "-o", "report.json")
    assert (result.code, result.stdout) == (130, "")
    assert not (folder / "report.json").exists()
