"""Faults that people reported in public, made again, and what bncli answers to each.

Every case has a `make.py` that really causes its fault and writes the files that the reporter had.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

CASES = Path(os.environ.get("BNCLI_CASES") or Path(__file__).parents[1].parent / "shared" / "cases")
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason=f"there is no {CASES}")

LEFT_OUT = {
    "20_cyclegan155": "the training output is that of InstanceNorm: a live model",
}
"""Cases that no file answers."""


class Call:
    """One run of bncli, in the folder of a case, and its report."""

    def __init__(self, run: Any, *argv: object) -> None:
        self.result = run(*argv, "-f", "json")
        self.code = self.result.code
        self.report = self.result.report
        self.findings = self.report["findings"]

    def codes(self, *severities: str) -> set[tuple[str, str]]:
        """Each finding's code and place; of all severities where none is named."""
        return {
            (finding["code"], finding["subject"])
            for finding in self.findings
            if not severities or finding["severity"] in severities
        }

    def one(self, code: str, subject: str | None = None) -> dict[str, Any]:
        """The only finding of a code, at a place if that is given."""
        (finding,) = [
            finding
            for finding in self.findings
            if finding["code"] == code and subject in {None, finding["subject"]}
        ]
        return finding

    @property
    def layers(self) -> dict[str, dict[str, Any]]:
        """The rows of the layers by name."""
        return {row["name"]: row for row in self.report["tables"]["layers"]}


def deepspeed(run):
    call = Call(run, "inspect-checkpoint", "pytorch_model.bin")
    assert call.code == 3
    assert {code for code, _ in call.codes()} == {"BN107"}
    assert not call.codes("warning", "error")
    said = str(call.findings)
    assert "'1'" in said and "'4'" in said  # noqa: PT018 (the two layers' names)
    whole = Call(run, "inspect-checkpoint", "fp16_consolidated.bin")
    assert (whole.code, list(whole.layers)) == (0, ["1", "4"])
    assert not whole.codes("warning", "error")


def buffers_by_index(run):
    for name in ("model.pth", "whole.pt"):
        call = Call(run, "inspect-checkpoint", name)
        assert call.code == 1
        assert call.codes("error") == {("BN210", "bn1")}
        assert call.one("BN304", "bn1")["severity"] == "warning"
        assert "[16]" in call.one("BN304")["message"]
        assert not {code for code, _ in call.codes()} & {"BN203", "BN207"}


def zeros(run):
    call = Call(run, "inspect-checkpoint", "dump.npz")
    assert call.code == 1
    assert call.codes("error") == {("BN208", "layer_1/batch_normalization")}
    assert not {code for code, _ in call.codes()} & {"BN404", "BN402", "BN407"}
    assert Call(run, "inspect-checkpoint", "dump_split.npz").code in {1, 3}


def target_network(run):
    for name, before in (("dqn_cartpole.zip", "policy."), ("policy.pth", "")):
        call = Call(run, "inspect-checkpoint", name)
        target = f"{before}q_net_target.q_net.1"
        assert call.code == 1
        assert call.layers.keys() == {f"{before}q_net.q_net.1", target}
        assert call.codes("error", "warning") == {("BN101", target)}
        finding = call.one("BN101")
        assert f"{before}q_net.q_net.1" in str(finding)  # the twin, whose buffers to copy
        assert "running_var" in finding["hint"]


def ignored_weight(run):
    call = Call(run, "identify", "x.npy", "mxnet_out.npy", "--state", "net_torch.pth::bn6_3")
    assert call.code == 0
    best = call.report["tables"]["hypotheses"][0]
    assert (best["mode"], best["eps"], best["explains"]) == ("eval", 1e-3, True)
    assert best["variant"] == "weight ignored"
    assert call.codes() == {("BN904", "OUTPUT")}
    assert not Call(
        run, "identify", "x.npy", "torch_out.npy", "--state", "net_torch.pth::bn6_3"
    ).codes("warning", "error")


def fresh_statistics(run):
    call = Call(run, "identify", "x.npy", "paddle.npy", "--state", "bn.pt::bn")
    best = call.report["tables"]["hypotheses"][0]
    assert (best["mode"], best["explains"]) == ("eval", True)
    assert "0 and 1" in best["variant"]
    assert call.codes("warning", "error")
    assert Call(
        run, "identify", "x.npy", "paddle.npy", "--state", "bn.pt::bn", "--fail-on", "warning"
    ).code == 1  # fmt: skip
    torch_made = Call(run, "identify", "x.npy", "torch.npy", "--state", "bn.pt::bn")
    assert not torch_made.codes("warning", "error")


def server_optimiser(run):
    call = Call(run, "inspect-checkpoint", "server_round40.pt")
    assert call.code == 1
    assert call.codes("error") == {("BN203", "1"), ("BN203", "4")}
    found = call.one("BN203", "4")
    assert "optimiser" in found["detail"]
    assert "-0.0056" in found["message"]


def frozen_buffers(run):
    flags = [
        f"--running-{what}-{when}=r{what[0]}{number}.npy"
        for what in ("mean", "var")
        for when, number in (("before", 0), ("after", 1))
    ]
    call = Call(run, "identify", "x.npy", *flags)
    assert call.code == 0
    assert {code for code, _ in call.codes("warning")} == {"BN906"}
    assert Call(run, "identify", "x.npy", *flags, "--fail-on", "warning").code == 1


def young_average(run):
    call = Call(run, "inspect-checkpoint", "checkpoint-62.pth.tar")
    assert call.code == 0
    assert call.codes("error", "warning") == {
        ("BN608", "state_dict_ema.1"), ("BN608", "state_dict_ema.4"),
    }  # fmt: skip
    for layer in ("1", "4"):
        evidence = call.one("BN608", f"state_dict_ema.{layer}")["evidence"]
        assert evidence["initial_weight"] == pytest.approx(0.9998**800, abs=0.003)
        assert evidence["live"] == f"state_dict.{layer}"
    assert "BN604" not in {code for code, _ in call.codes()}
    live, copy = (f"checkpoint-62.pth.tar::state_dict{end}" for end in ("", "_ema"))
    target = Call(run, "compare-checkpoints", live, "--with", copy)
    assert target.one("BN617", "statistics")["evidence"]["initial"] == pytest.approx(0.85, abs=0.01)


def padding(run):
    state = ("--state", "deepspeech.pth", "--eval")
    call = Call(run, "compute", "x_frames.npy", *state)
    assert call.code == 0
    assert {code for code, _ in call.codes("warning")} == {"BN013"}
    assert not Call(run, "compute", "x_padded.npy", *state).codes("warning", "error")


def statistics_alone(run):
    call = Call(run, "inspect-checkpoint", "latest_net_G.pth")
    assert call.code == 3
    assert {code for code, _ in call.codes()} == {"BN107"}
    assert not call.codes("warning", "error")
    said = str(call.findings)
    assert all(f"model.{number}" in said for number in (2, 5, 8))
    assert "InstanceNorm" in said


def forgotten_buffers(run):
    call = Call(run, "inspect-checkpoint", "last.ckpt")
    assert call.code == 0
    assert call.codes("error", "warning") == {
        ("BN609", "state_dict.ema.module.1"), ("BN609", "state_dict.ema.module.4"),
    }  # fmt: skip
    for layer in ("1", "4"):
        evidence = call.one("BN609", f"state_dict.ema.module.{layer}")["evidence"]
        assert evidence["num_batches_tracked"] == 300
        assert evidence["live_num_batches_tracked"] == 600
        assert evidence["live"] == f"state_dict.model.{layer}"
    assert "BN604" not in {code for code, _ in call.codes()}


def memory_never_filled(run):
    call = Call(run, "inspect-checkpoint", "csflow.pt")
    layer = "feature_extractor.2.1"
    assert call.code == 1
    assert call.codes("error", "warning") == {("BN209", layer)}
    assert not {code for code, _ in call.codes()} & {"BN201", "BN202", "BN406"}


def outlier_batches(run):
    call = Call(run, "compute", "bn1_in.pt", "--state", "epoch3.pth::model.1", "--eval")
    assert call.code == 0
    assert {code for code, _ in call.codes("warning")} == {"BN013"}
    for epoch in (0, 2):
        healthy = Call(
            run, "compute", "bn1_in.pt", "--state", f"epoch{epoch}.pth::model.1", "--eval"
        )
        assert not healthy.codes("warning", "error")
    series = Call(run, "compare-checkpoints", "epoch*.pth")
    assert series.one("BN618")["severity"] == "warning"
    assert series.one("BN618")["path"] == "epoch3.pth"


def unbiased_variance(run):
    call = Call(run, "trace", "x.npy", "--state", "model.pt::bn", "--eval")
    assert call.code == 0
    assert "differs from training at var" in call.report["verdict"]
    assert "0.25" in call.report["verdict"]


def newest_batch(run):
    call = Call(run, "inspect-checkpoint", "model.pth")
    assert call.code == 0
    found = [finding for finding in call.findings if finding["code"] in {"BN701", "BN708"}]
    assert found
    assert all(0.95 in flat(finding["evidence"]) for finding in found)
    assert "0.05" in str(found)  # Keras' reading of 0.95
    assert not Call(run, "inspect-checkpoint", "sd.pth").codes("warning", "error")


def made(call):
    """What each group of a target's tensors is."""
    return {row["group"]: row["made"] for row in call.report["tables"]["origins"]}


def summed_counters(run):
    call = Call(run, "compare-checkpoints", "*epoch.pth", "--with", "valid.acc.ave_10best.pth")
    assert call.code == 0
    assert made(call) == {"parameters": "mean", "statistics": "mean", "counters": "sum"}
    assert call.one("BN617", "counters")["severity"] == "info"


def ranks_with_own_counts(run):
    call = Call(run, "compare-checkpoints", "rank0.pt", "rank1.pt")
    assert call.one("BN614", "bn")["severity"] == "warning"
    assert call.one("BN614")["evidence"]["ratio"] == pytest.approx(1 / 1.0376, rel=1e-4)


def training_under_old_statistics(run):
    call = Call(run, "compare-checkpoints", "pretrained.pt", "qat.pt")
    assert {row["state"] for row in call.layers.values()} == {"weights-moved"}
    assert call.codes() == {("BN612", "1"), ("BN612", "4")}


def buffers_of_one_client(run):
    call = Call(run, "compare-checkpoints", "client*.pt", "--with", "global.pt")
    assert made(call) == {"parameters": "mean", "statistics": "one-file", "counters": "same"}
    assert "client0.pt's, bit for bit" in call.one("BN617", "statistics")["message"]


HELD = {
    "01_deepspeed1101": deepspeed,
    "02_pytorch60624": buffers_by_index,
    "04_tf2onnx1610": zeros,
    "07_sb3_996": target_network,
    "08_espnet2283": summed_counters,
    "09_mxnet15717": ignored_weight,
    "11_paddle23216": fresh_statistics,
    "12_fl4health39": server_optimiser,
    "16_ort6349": frozen_buffers,
    "19_timm245": young_average,
    "22_deepspeech360": padding,
    "23_deblurgan94": statistics_alone,
    "26_sesemi36": forgotten_buffers,
    "27_pytorch22192": ranks_with_own_counts,
    "29_anomalib2965": memory_never_filled,
    "31_discuss32159": outlier_batches,
    "32_discuss73156": unbiased_variance,
    "33_dncnn74": newest_batch,
    "35_executorch21056": training_under_old_statistics,
    "36_fedamid_flbench": buffers_of_one_client,
}
"""What is asked of bncli in each case, and what it must answer."""


def flat(value: Any) -> list[Any]:
    """All values in what may be lists and tables of each other."""
    if isinstance(value, dict):
        value = list(value.values())
    return [part for item in value for part in flat(item)] if isinstance(value, list) else [value]


def make(name: str, folder: Path) -> None:
    """Run a case's script, which writes into the folder and makes it the current one."""
    argv, here, random = sys.argv, Path.cwd(), torch.random.get_rng_state()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # such small tensors only wait for a second one
    sys.argv = ["make.py", str(folder)]
    try:
        with warnings.catch_warnings(), contextlib.suppress(SystemExit):
            warnings.simplefilter("ignore")
            runpy.run_path(str(CASES / name / "make.py"), run_name="__main__")
    finally:
        sys.argv = argv
        os.chdir(here)
        torch.random.set_rng_state(random)
        torch.set_num_threads(threads)


def test_every_case_is_held_or_left_out_for_a_reason():
    there = {path.parent.name for path in CASES.glob("*/make.py")}
    assert there == HELD.keys() | LEFT_OUT.keys()


@pytest.mark.parametrize("name", HELD)
def test_case(name, folder, run):
    make(name, folder)
    HELD[name](run)
