"""One checkpoint, judged: what was read, what was chosen, and what was left out."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import ExitCode
from tests.commands.inspect_checkpoint.networks import net
from tests.commands.inspect_checkpoint.small import small
from tests.loaders.keras_files import archive, keras_3, vectors


def test_layer_that_cannot_be_read_does_not_spoil_the_file(run, folder):
    state = net().state_dict()
    state["head.running_var"] = torch.empty(6, device="meta")
    torch.save(state, "net.pt")
    result = run("inspect-checkpoint", "net.pt", "-f", "json")
    assert result.code == ExitCode.OK
    good, bad = result.report["tables"]["layers"]
    assert good["note"] is None
    assert "1 layer could not be read completely" in result.report["remarks"]
    assert good["var_max"] > 0
    assert "head.running_var" in bad["note"]
    assert bad["var_max"] is None
    assert bad["mean_max"] == state["head.running_mean"].max().item()


def test_one_layer_or_all_below_a_prefix(run, folder):
    state = {
        f"{model}.{key}": value for model in ("a", "b") for key, value in net().state_dict().items()
    }
    torch.save(state, "net.pt")

    def names(spec):
        report = run("inspect-checkpoint", spec, "-f", "json").report
        return [row["name"] for row in report["tables"]["layers"]]

    assert names("net.pt") == ["a.1", "a.head", "b.1", "b.head"]
    assert names("net.pt::a") == ["a.1", "a.head"]
    assert names("net.pt::b.head") == ["b.head"]
    refused = run("inspect-checkpoint", "net.pt::c")
    assert refused.code == ExitCode.ERROR
    assert refused.stderr.count("\n") == 1


LAYER = {
    "bn.weight": np.ones(3),
    "bn.bias": np.ones(3),
    "bn.running_mean": np.array([0.1, 0.2, 0.3]),
    "bn.running_var": np.array([0.3, 0.2, 0.4]),
}


@pytest.mark.parametrize("container", ["npz", "pt"])
def test_what_is_no_number_is_counted(run, save, container):
    texts = {"names": np.array(["a", "b"]), "objects": np.array([None, 1], dtype=object)}
    report = run(
        "inspect-checkpoint", save(f"x.{container}", **LAYER, **texts), "-f", "json"
    ).report
    assert (report["facts"]["layers"], report["facts"]["unread"]) == (1, 2)
    assert "2 entries were not read: " in report["remarks"][-1]
    report = run("inspect-checkpoint", save(f"y.{container}", **LAYER), "-f", "json").report
    assert report["facts"]["unread"] is None
    report = run("inspect-checkpoint", save(f"z.{container}", **texts), "-f", "json").report
    assert (report["exit_code"], report["facts"]["unread"]) == (3, 2)


def test_the_statistics_as_objects_are_counted(run, save):
    objects = {key: value.astype(object) for key, value in LAYER.items()}
    report = run("inspect-checkpoint", save("x.pt", **objects), "-f", "json").report
    assert (report["exit_code"], report["facts"]["unread"]) == (3, 4)


def test_a_tensor_of_a_layer_has_its_note_and_is_not_counted_again(run, save):
    objects = LAYER | {"bn.bias": np.array([None] * 3), "other": np.array(["a"])}
    report = run("inspect-checkpoint", save("x.npz", **objects), "-f", "json").report
    assert report["facts"]["unread"] == 1
    assert report["tables"]["layers"][0]["note"]


def test_checkpoints_inside_of_an_archive(run, folder):
    """As Stable-Baselines3 saves: policy.pth in a .zip."""
    with zipfile.ZipFile("agent.zip", "w") as archive:
        torch.save(LAYER, "policy.pth")
        archive.write("policy.pth")
        archive.writestr("old.pth", b"\x80\x02.")
    report = run("inspect-checkpoint", "agent.zip", "-f", "json").report
    assert [row["name"] for row in report["tables"]["layers"]] == ["policy.bn"]
    assert report["facts"]["unread"] == 1
    assert "old.pth" in report["remarks"][-1]
    assert run("inspect-checkpoint", "agent.zip::policy.bn").code == 0


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
    assert "all 5000 channels" in finding["message"]


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


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_models_in_one_archive_are_judged_each_by_itself(run, folder, method):
    """Equal statistics, and a counter that one of them lacks, are no fault of either."""
    state = net().state_dict()
    torch.save(state, "a.pt")
    torch.save({key: each for key, each in state.items() if "num_batches" not in key}, "b.pt")
    with zipfile.ZipFile("two.zip", "w", method) as archive:
        archive.write("a.pt")
        archive.write("b.pt")
    result = run("inspect-checkpoint", "two.zip", "-f", "json", "--expect-layers", "4")
    assert result.code == ExitCode.OK
    assert [row["name"] for row in result.report["tables"]["layers"]] == [
        "a.1", "a.head", "b.1", "b.head"
    ]  # fmt: skip
    codes = {finding["code"] for finding in result.report["findings"]}
    assert codes.isdisjoint({"BN301", "BN601", "BN610"})
    assert "4 BatchNorm layers in 2 models" in run("inspect-checkpoint", "two.zip").stdout
    one = run("inspect-checkpoint", "two.zip::b", "-f", "json").report["tables"]["layers"]
    assert [row["name"] for row in one] == ["b.1", "b.head"]


def test_a_config_that_cannot_be_read_may_have_stored_eps_and_momentum(run, folder):
    pytest.importorskip("h5py")
    (folder / "x.keras").write_bytes(archive(keras_3({"bn": list(vectors().values())}), "{bad"))
    printed = " ".join(run("inspect-checkpoint", "x.keras").stdout.split())
    assert "are assumed: bncli could not read the file's config" in printed
    assert "1 entry was not read: config.json (it is damaged or is not the config" in printed
