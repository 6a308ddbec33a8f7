"""eps and momentum: from flags, one for all or by glob, or from the file."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from bncli.errors import ExitCode
from tests.commands.inspect_checkpoint.networks import net
from tests.commands.inspect_checkpoint.small import small


def test_eps_flag(run, folder):
    torch.save(net().state_dict(), "net.pt")
    one = run("inspect-checkpoint", "net.pt", "--eps", "0", "-f", "json").report
    assert one["facts"]["eps_source"] == "flag"
    other = run("inspect-checkpoint", "net.pt", "--eps", "100", "-f", "json").report
    scales = [report["tables"]["layers"][0]["scale_max"] for report in (one, other)]
    assert abs(scales[0]) > 5 * abs(scales[1])
    refused = run("inspect-checkpoint", "net.pt", "--eps", "-1")
    assert (refused.code, refused.stderr) == (
        2,
        "bncli: --eps -1: eps must be a finite number, 0 or above.\n",
    )


def test_eps_and_momentum_by_glob(run, folder):
    torch.save({f"backbone.{k}": v for k, v in small().state_dict().items()}, "net.pt")

    def rows(*flags):
        report = run("inspect-checkpoint", "net.pt", *flags, "-f", "json").report
        facts = report["facts"]
        rows = report["tables"]["layers"]
        values = [(row["eps"], row["momentum"]) for row in rows]
        return values, facts["eps_source"], facts["momentum_source"]

    assert rows() == ([(1e-5, 0.1)] * 3, "assumed", "assumed")
    assert rows("--eps", "0.5") == ([(0.5, 0.1)] * 3, "flag", "assumed")
    assert rows("--eps", "backbone.h*=1e-3") == (
        [(1e-5, 0.1), (1e-5, 0.1), (1e-3, 0.1)],
        "mixed",
        "assumed",
    )
    # The number for all gives way to a glob, wherever it stands; of two globs the last wins.
    several = ("--eps", "head=0.25", "--eps", "0.5", "--momentum", "*ody=none")
    assert rows(*several)[0] == [(0.5, 0.1), (0.5, "none"), (0.25, 0.1)]
    assert rows("--momentum", "*=0.3", "--momentum", "stem=0.2")[0][0] == (1e-5, 0.2)


def test_eps_changes_the_judgement(run, folder):
    state = small().state_dict()
    state["stem.running_var"][1] = 5e-4
    torch.save(state, "net.pt")

    def codes(*flags):
        report = run("inspect-checkpoint", "net.pt", *flags, "-f", "json").report
        return [(f["code"], f["subject"]) for f in report["findings"]]

    assert ("BN401", "stem") not in codes()
    assert ("BN401", "stem") in codes("--eps", "1e-3")
    assert ("BN401", "stem") not in codes("--eps", "body=1e-3")
    messages = run("inspect-checkpoint", "net.pt", "--eps", "1e-3", "-f", "json").report["findings"]
    assert messages[0]["message"].endswith("below eps 0.001")  # given, and so not assumed
    assert messages[0]["certainty"] == "certain"


def test_what_was_assumed_is_said(run, folder):
    model = small()
    model["stem"].running_var[0] = 1e-7
    torch.save(model.state_dict(), "net.pt")
    torch.save(model, "whole.pt")
    (assumed,) = run("inspect-checkpoint", "net.pt", "-f", "json").report["findings"][:1]
    (stored,) = run("inspect-checkpoint", "whole.pt", "-f", "json").report["findings"][:1]
    assert assumed["message"].endswith("eps 1e-05 (assumed)")
    assert assumed["certainty"] == "depends on an assumption"
    assert stored["message"].endswith("eps 1e-05")
    assert stored["certainty"] == "certain"


def test_eps_0_is_fine_until_a_variance_is_0(run, folder):
    state = small().state_dict()
    torch.save(state, "net.pt")
    assert run("inspect-checkpoint", "net.pt", "--eps", "0", "-q").code == 0
    state["body.running_var"][3] = 0.0
    torch.save(state, "net.pt")
    report = run("inspect-checkpoint", "net.pt", "--eps", "0", "-f", "json").report
    first = report["findings"][0]
    assert (first["code"], first["evidence"]["cause"]) == ("BN203", "eps-0")
    assert first["evidence"]["channels"] == [3]


def test_minus_eps_in_float32_is_0_though_not_in_float64(run, folder):
    """What PyTorch does with it is the judge: an output that is not finite."""
    bn = nn.BatchNorm1d(4).eval()
    bn.running_var[1] = -1e-5
    assert not bn(torch.ones(1, 4)).isfinite().all()
    bn.num_batches_tracked.fill_(500)
    torch.save(bn.state_dict(), "single.pt")
    assert run("inspect-checkpoint", "single.pt", "-q").code == ExitCode.FINDING
    double = bn.double()
    double.running_var[1] = np.float32(-1e-5).item()  # a hair above -1e-5
    assert double(torch.ones(1, 4).double()).isfinite().all()
    torch.save(double.state_dict(), "double.pt")
    report = run("inspect-checkpoint", "double.pt", "-f", "json").report
    assert [f["code"] for f in report["findings"]][:1] == ["BN204"]
