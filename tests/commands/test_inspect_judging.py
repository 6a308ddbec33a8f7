"""`bncli inspect-checkpoint`: what is judged, shown, chosen and folded, and from which numbers."""

from __future__ import annotations

import copy
import json
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from bncli.commands.inspect_checkpoint.layer_rows import sketch
from bncli.errors import ExitCode
from bncli.renderers.interface import RenderContext
from bncli.renderers.table import render
from bncli.report import Finding, Report, Severity, Table

NO_SUCH = "no BatchNorm layer has such a name"


def small(seed=0):
    """Three layers with statistics, from enough batches to have forgotten the beginning."""
    return copy.deepcopy(_small(seed))


@cache
def _small(seed):
    generator = torch.Generator().manual_seed(seed)
    model = nn.ModuleDict({"stem": nn.BatchNorm1d(4), "body": nn.BatchNorm1d(6)})
    model["head"] = nn.BatchNorm1d(4)
    for module in model.values():
        nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
        nn.init.uniform_(module.bias, -1, 1, generator=generator)
        for _ in range(100):
            module(torch.randn(8, module.num_features, generator=generator))
    return model


def golden_file():
    """A network with an error, a warning and a note, made of round numbers."""
    channels = torch.arange(1, 5, dtype=torch.float32)

    def layer(name, var, counter):
        return {
            f"{name}.weight": channels / 4,
            f"{name}.bias": channels / 8,
            f"{name}.running_mean": channels - 2,
            f"{name}.running_var": torch.tensor(var),
            f"{name}.num_batches_tracked": torch.tensor(counter),
        }

    return {
        "state_dict": {
            **layer("module.stem.bn", [0.25, 0.5, 1.0, 2.0], 4000),
            **layer("module.body.bn", [0.25, 0.5, -1e-5, 2.0], 4000),
            **layer("module.head.bn", [0.25, 1e-6, 1.0, 2.0], 270),
        }
    }


@pytest.mark.parametrize(
    ("form", "suffix"), [("json", "json"), ("csv", "csv"), ("markdown", "md"), ("table", "txt")]
)
def test_goldens(run, folder, golden, form, suffix):
    torch.save(golden_file(), "net.pt")
    result = run("inspect-checkpoint", "net.pt", "-f", form, "--width", "100")
    assert result.code == ExitCode.FINDING
    golden(f"inspect_checkpoint.{suffix}", result.stdout)


def test_the_goldens_numbers(run, folder):
    """weight / sqrt(running_var + eps) of the stem's last channel, by hand: 1/sqrt(2.00001)."""
    torch.save(golden_file(), "net.pt")
    report = run("inspect-checkpoint", "net.pt", "-f", "json").report
    stem, body, head = report["tables"]["layers"]
    assert stem["scale_max"] == pytest.approx(0.75 / np.sqrt(1.00001), rel=1e-12)
    assert (stem["flags"], body["flags"], head["flags"]) == (None, "BN203", "BN401")
    assert {(f["code"], f["subject"]) for f in report["findings"]} == {
        ("BN203", "state_dict.module.body.bn"),
        ("BN401", "state_dict.module.head.bn"),
        ("BN302", "num_batches_tracked"),
    }
    assert report["facts"]["counters"] == "2 layers at 4000, 1 at 270"
    assert report["facts"]["found"] == "1 error, 1 warning, 1 note"
    assert report["verdict"].endswith("1 error, 1 warning, 1 note.")


def test_layers_are_chosen_by_glob_and_the_file_is_judged_whole(run, folder):
    state = small().state_dict()
    state["head.running_mean"] = torch.zeros(4)
    state["head.running_var"] = torch.ones(4)
    torch.save({"net": {f"module.{name}": value for name, value in state.items()}}, "net.pt")

    def shown(*flags):
        result = run("inspect-checkpoint", "net.pt", *flags, "-f", "json")
        names = [row["name"].rpartition(".")[2] for row in result.report["tables"]["layers"]]
        return result.code, names, [finding["code"] for finding in result.report["findings"]]

    assert shown() == (1, ["stem", "body", "head"], ["BN101"])
    assert shown("--layer", "*ody") == (0, ["body"], [])
    assert shown("--layer", "head") == (1, ["head"], ["BN101"])  # its siblings still count
    assert shown("--layer", "module.s*", "--layer", "body")[1] == ["stem", "body"]
    assert shown("--layer", "net.module.*")[1] == ["stem", "body", "head"]
    refused = run("inspect-checkpoint", "net.pt", "--layer", "hea")
    assert refused.code == ExitCode.ERROR
    assert refused.stderr == (
        "bncli: --layer hea: no BatchNorm layer has such a name; there are 3, such as "
        "net.module.head.\n"
    )


def test_the_order_of_the_layers(run, folder):
    state = {}
    for name in ("b10", "b9", "a"):
        state |= {f"{name}.{k}": v for k, v in small()["stem"].state_dict().items()}
        state[f"{name}.running_mean"] = torch.randn(4)
    state["b9.running_var"] = torch.full((4,), torch.nan)
    torch.save(state, "net.pt")

    def names(*flags):
        report = run("inspect-checkpoint", "net.pt", *flags, "-f", "json").report
        return [row["name"] for row in report["tables"]["layers"]]

    assert names() == ["b10", "b9", "a"]
    assert names("--sort", "name") == ["a", "b9", "b10"]
    assert names("--sort", "trouble") == ["b9", "b10", "a"]


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
    assert "below eps 0.001;" in messages[0]["message"]  # given, and so not assumed


def test_what_was_assumed_is_said(run, folder):
    model = small()
    model["stem"].running_var[0] = 1e-7
    torch.save(model.state_dict(), "net.pt")
    torch.save(model, "whole.pt")
    (assumed,) = run("inspect-checkpoint", "net.pt", "-f", "json").report["findings"][:1]
    (stored,) = run("inspect-checkpoint", "whole.pt", "-f", "json").report["findings"][:1]
    assert "eps 1e-05 (assumed)" in assumed["message"]
    assert "eps 1e-05;" in stored["message"]


def test_several_files_say_which(run, folder):
    good, bad = small(), small(1)
    bad["stem"].running_var[2] = -1.0
    torch.save(good.state_dict(), "a.pt")
    torch.save(bad.state_dict(), "b.pt")
    result = run("inspect-checkpoint", "a.pt", "b.pt", "-f", "json")
    assert result.code == ExitCode.FINDING
    (finding,) = result.report["findings"]
    assert (finding["path"], finding["subject"]) == ("b.pt", "stem")
    assert finding["evidence"]["layer"] == "stem"
    flags = {(row["path"], row["name"]): row["flags"] for row in result.report["tables"]["layers"]}
    assert {place for place, codes in flags.items() if codes} == {("b.pt", "stem")}


def test_fail_on(run, folder):
    model = small()
    model["stem"].running_var[0] = 1e-7
    torch.save(model.state_dict(), "net.pt")
    codes = [
        run("inspect-checkpoint", "net.pt", "-q", "--fail-on", level).code
        for level in ("error", "warning", "info", "never")
    ]
    assert codes == [0, 1, 1, 0]


def test_parameters_saved_alone_are_recognised(run, folder):
    parameters = {
        f"bn{n}.{k}": v.detach() for n in (1, 2) for k, v in small()["stem"].named_parameters()
    }
    torch.save(parameters, "net.pt")
    result = run("inspect-checkpoint", "net.pt", "-f", "json")
    assert result.code == ExitCode.NOTHING
    (finding,) = result.report["findings"]
    assert (finding["code"], finding["severity"]) == ("BN107", "info")
    assert finding["evidence"]["affine_alone"] == ["bn1", "bn2"]


@pytest.mark.parametrize(
    ("name", "blamed"),
    [
        ("bn", True),
        ("bn2", True),
        ("conv_bn", True),
        ("batch_norm", True),
        ("BatchNorm_3", True),
        ("norm1", False),
        ("norm", False),
        ("ln", False),
        ("subnet", False),
        ("downsample.1", False),
    ],
)
def test_only_names_that_say_batchnorm_are_blamed_for_missing_statistics(run, folder, name, blamed):
    bare = {f"{name}.{k}": v.detach() for k, v in small()["stem"].named_parameters()}
    torch.save(small().state_dict() | bare, "net.pt")
    codes = [
        f["code"] for f in run("inspect-checkpoint", "net.pt", "-f", "json").report["findings"]
    ]
    assert codes == (["BN106"] if blamed else [])


def wide(channels):
    """A healthy layer of many channels, as a state_dict."""
    rng = np.random.default_rng(0)
    values = {
        "weight": rng.uniform(0.5, 1.5, channels),
        "bias": rng.normal(size=channels),
        "running_mean": rng.normal(size=channels),
        "running_var": rng.uniform(0.5, 1.5, channels),
    }
    state = {f"x.{leaf}": torch.from_numpy(array).float() for leaf, array in values.items()}
    return state | {"x.num_batches_tracked": torch.tensor(1000)}


@pytest.mark.parametrize("channels", [(1 << 18) + 1, 1_000_000])
def test_a_layer_of_very_many_channels_is_judged_like_any_other(run, folder, channels):
    state = wide(channels)
    torch.save(state, "net.pt")
    report = run("inspect-checkpoint", "net.pt", "-f", "json").report
    assert report["exit_code"] == 0
    assert report["findings"] == []
    (row,) = report["tables"]["layers"]
    assert (row["channels"], row["note"]) == (channels, None)
    assert row["var_max"] == state["x.running_var"].max().item()
    state["x.running_var"][-1] = float("nan")
    state["x.weight"][channels // 2] = float("inf")
    torch.save(state, "net.pt")
    report = run("inspect-checkpoint", "net.pt", "-f", "json").report
    found = {f["code"]: f["evidence"]["channels"] for f in report["findings"]}
    assert (report["exit_code"], found["BN201"]) == (1, [channels - 1])
    assert found["BN202"] == [channels // 2]


def test_a_layer_too_large_to_be_one_is_refused(run, folder, monkeypatch):
    monkeypatch.setattr("bncli.commands.inspect_checkpoint.judged_file.MOST_CHANNELS", 1000)
    torch.save(small().state_dict(), "net.pt")
    torch.save(wide(1001), "wide.pt")
    assert run("inspect-checkpoint", "net.pt").code == 0
    result = run("inspect-checkpoint", "wide.pt")
    assert tuple(result)[:2] == (2, "")
    assert "1001 values" in result.stderr
    result = run("inspect-checkpoint", "net.pt", "wide.pt", "-f", "json")
    assert result.code == 2
    assert [item["path"] for item in result.report["unread"]] == ["wide.pt"]
    assert {row["path"] for row in result.report["tables"]["layers"]} == {"net.pt", "wide.pt"}


def test_evidence_is_bounded(run, folder):
    wide = nn.BatchNorm1d(5000)
    wide.running_var.fill_(-1.0)
    wide.running_mean.normal_()
    torch.save(wide.state_dict(), "net.pt")
    finding = run("inspect-checkpoint", "net.pt", "-f", "json").report["findings"][0]
    evidence = finding["evidence"]
    assert evidence["channel_count"] == 5000
    assert evidence["channels"] == list(range(1024))
    assert len(evidence["running_var"]) == 1024
    assert "every one of 5000 channels" in finding["message"]


@pytest.mark.parametrize(
    ("scales", "expected"),
    [
        ([1.0] * 5, "····█···"),
        ([-1.0, 1.0, 2.0, 10.1], "····█·▃·"),
        ([0.0, 0.001, 0.0317, 1e9, np.inf, np.nan], "█▄·····▄"),
        ([np.nan], None),
        ([0.03, 0.1, 0.3, 0.99, 1.01, 3.1, 3.2, 31.0, 33.0], "▄▄▄▄█▄▄▄"),
    ],
)
def test_sketch(scales, expected):
    if expected is None:
        assert sketch(np.array(scales)) is None
    else:
        assert len(sketch(np.array(scales))) == 8
        edges = 10.0 ** np.arange(-1.5, 1.75, 0.5)
        counts = np.bincount(
            np.searchsorted(edges, np.abs([s for s in scales if np.isfinite(s)]), side="right"),
            minlength=8,
        )
        heights = np.ceil(counts * 8 / counts.max()).astype(int)
        assert sketch(np.array(scales)) == "".join("·▁▂▃▄▅▆▇█"[h] for h in heights)


def report_of(findings):
    table = Table("layers", "Layers", (), [])
    return Report("inspect-checkpoint", {}, (table,), tuple(findings))


def test_many_findings_of_a_kind_share_a_line_on_a_terminal_alone():
    kinds = [Severity.ERROR] * 2 + [Severity.WARNING] * 60
    findings = [
        Finding(f"BN{severity.rank}01", severity, f"layer{n}", f"fact {n}.", {}, "Mend it.")
        for n, severity in enumerate(kinds)
    ]
    terminal = render(report_of(findings), RenderContext(ExitCode.OK, 100, terminal=True))
    lines = " ".join(terminal.split())
    assert "error BN201 layer0: fact 0. Mend it. error BN201 layer1: fact 1. Mend it." in lines
    assert (
        "warning BN101 in 60 places (layer2, layer3, layer4 and 57 more); the first: fact 2. "
        "Mend it." in lines
    )
    assert "layer5" not in lines
    assert len(terminal.splitlines()) < 15
    piped = render(report_of(findings), RenderContext(ExitCode.OK, 100))
    assert piped.count("warning BN101") == 60


def test_an_eighty_layer_network_stays_readable(run, folder):
    state = {}
    for n in range(80):
        layer = {f"layer{n}.{k}": v for k, v in small()["stem"].state_dict().items()}
        layer[f"layer{n}.running_mean"] = torch.randn(4)
        layer[f"layer{n}.weight"] = torch.tensor([1.0, 0.0, 1.0, 1.0])
        state |= layer
    state["layer40.running_var"] = torch.full((4,), torch.nan)
    torch.save(state, "net.pt")
    report = json.loads(run("inspect-checkpoint", "net.pt", "-f", "json").stdout)
    assert len(report["findings"]) == 81
    assert report["findings"][0]["code"] == "BN201"
    findings = [
        Finding(**{**finding, "severity": Severity(finding["severity"])})
        for finding in report["findings"]
    ]
    text = render(report_of(findings), RenderContext(ExitCode.OK, 100, terminal=True))
    assert text.index("BN201") < text.index("BN403")
    assert len(text.splitlines()) < 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("--eps -1", "--eps -1: eps is a number, 0 or more."),
        ("--eps body=nan", "--eps nan: eps is a number, 0 or more."),
        ("--eps body=", "--eps : eps is a number, 0 or more."),
        ("--eps abc", "--eps abc: eps is a number, 0 or more."),
        (
            "--momentum stem=fast",
            "--momentum fast: a number such as 0.1, or none for the cumulative average.",
        ),
        (
            "--layer nowhere.*",
            f"--layer nowhere.*: {NO_SUCH}; there are 3, such as stem, body, head.",
        ),
        (
            "--eps 1e-3 --eps hed=1e-5",
            f"--eps hed=...: {NO_SUCH}; there are 3, such as head.",
        ),
        (
            "--momentum nowhere.*=none",
            f"--momentum nowhere.*=...: {NO_SUCH}; there are 3, such as stem, body, head.",
        ),
    ],
)
def test_refusals(run, folder, arguments, sentence):
    torch.save(small().state_dict(), "net.pt")
    result = run("inspect-checkpoint", "net.pt", *arguments.split(" "))
    assert tuple(result) == (ExitCode.ERROR, "", f"bncli: {sentence}\n")


def test_a_wrong_order_is_refused(run, folder):
    torch.save(small().state_dict(), "net.pt")
    result = run("inspect-checkpoint", "net.pt", "--sort", "size")
    assert (result.code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


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


def test_a_layer_of_one_channel(run, folder):
    bn = nn.BatchNorm2d(1)
    for _ in range(100):
        bn(torch.randn(4, 1, 3, 3) * 2 + 1)
    torch.save(bn.state_dict(), "net.pt")
    report = run("inspect-checkpoint", "net.pt", "-f", "json").report
    assert report["findings"] == []
    assert report["tables"]["layers"][0]["name"] == "(the file itself)"
    bn.running_var.fill_(torch.nan)
    torch.save(bn.state_dict(), "net.pt")
    report = run("inspect-checkpoint", "net.pt", "-f", "json").report
    assert report["tables"]["layers"][0]["flags"] == "BN201"


def test_the_instance_norm_that_its_name_gives_away(run, folder):
    norm = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
    torch.save({f"instance_norm1.{k}": v for k, v in norm.state_dict().items()}, "net.pt")
    result = run("inspect-checkpoint", "net.pt", "-f", "json")
    assert result.report["tables"]["layers"][0]["kind_hint"] == "InstanceNorm?"
    assert "InstanceNorm that tracks statistics" in run("inspect-checkpoint", "net.pt").stdout
    torch.save(nn.Sequential(nn.BatchNorm2d(3)), "whole.pt")
    assert "InstanceNorm" not in run("inspect-checkpoint", "whole.pt").stdout


def test_an_initial_value_is_told_without_numbers_that_are_none(run, save):
    state = small()["stem"].state_dict()
    state["num_batches_tracked"].fill_(3)
    state["running_var"].fill_(float("nan"))
    state["running_mean"].fill_(float("nan"))
    save("net.pt", {f"stem.{name}": value for name, value in state.items()})
    findings = run("inspect-checkpoint", "net.pt", "-f", "json").report["findings"]
    (told,) = (finding for finding in findings if finding["code"] == "BN105")
    assert told["evidence"]["initial_weight"] == pytest.approx(0.729)
    assert (told["evidence"]["least_var"], told["evidence"]["momentum_assumed"]) == (None, True)
    assert "nan" not in told["message"]
    assert "assumed" in told["message"]
    assert told["evidence"]["least_var"] is None
