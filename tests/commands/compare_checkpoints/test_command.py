"""`bncli compare-checkpoints` on pairs of files that were made here, in every format."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from bncli.errors import ExitCode
from tests.calls import COMPARED

LAYERS = 20


def network(layers: int = LAYERS, width: int = 8) -> dict[str, torch.Tensor]:
    """A state with linear layers and BatchNorm layers in turn, after 100 batches."""
    torch.manual_seed(0)
    state = {}
    for at in range(layers):
        state[f"block{at}.fc.weight"] = torch.randn(width, width)
        state[f"block{at}.bn.weight"] = torch.rand(width) + 0.5
        state[f"block{at}.bn.bias"] = torch.randn(width)
        state[f"block{at}.bn.running_mean"] = torch.randn(width)
        state[f"block{at}.bn.running_var"] = torch.rand(width) + 0.5
        state[f"block{at}.bn.num_batches_tracked"] = torch.tensor(100)
    return state


def trained(state, which=range(LAYERS), *, weights=True, batches=40):
    """The state after more batches, in some of the blocks; perhaps without its weights."""
    state = copy.deepcopy(state)
    for name, values in state.items():
        block, leaf = name.split(".", 1)
        if int(block.removeprefix("block")) not in which:
            continue
        if leaf == "bn.num_batches_tracked":
            values.add_(batches)
        elif weights or "running" in leaf:
            values.add_(0.1 * torch.rand(values.shape))
    return state


@pytest.fixture
def pair(folder):
    """Save the first state, and give a function that saves the second and compares them."""
    first = network()
    torch.save(first, "a.pt")
    return first


@pytest.mark.parametrize(
    ("form", "suffix"), [("table", ".txt"), ("json", ".json"), ("csv", ".csv"), ("markdown", ".md")]
)
def test_golden(run, repository, monkeypatch, golden, form, suffix):
    monkeypatch.chdir(repository)
    result = run("compare-checkpoints", *COMPARED, "-f", form, "--width", 80)
    assert result.code == 0
    # A sum of products may end in another digit on another processor.
    text = re.sub(r"\d+\.\d{9,}", lambda found: f"{float(found[0]):.9g}", result.stdout)
    golden(f"compare_checkpoints{suffix}", text)


def test_the_facts_and_the_rows_are_those_of_the_files(run, pair):
    second = trained(pair, range(4, LAYERS))
    second["block0.bn.running_mean"] += 0.3
    second["block0.bn.num_batches_tracked"] += 40
    del second["block3.bn.running_mean"], second["block3.bn.running_var"]
    torch.save(second, "b.pt")
    report = run("compare-checkpoints", "a.pt", "b.pt", "-f", "json").report
    facts = report["facts"]
    assert facts["files"] == ["a.pt", "b.pt"]
    assert (facts["layers"], facts["matched"]) == (LAYERS, LAYERS)
    assert dict(facts["states"]) == {
        "lost": 1,
        "statistics-moved": 1,
        "trained": LAYERS - 4,
        "identical": 2,
    }
    rows = {row["name"]: row for row in report["tables"]["layers"]}
    assert list(rows) == [f"block{at}.bn" for at in range(LAYERS)]
    assert list(report["tables"]["layers"][0])[:10] == [
        "name",
        "other_name",
        "match",
        "state",
        "certainty",
        "batches",
        "z_max",
        "var_ratio",
        "weight_change",
        "effect",
    ]
    for at in (5, 19):
        row = rows[f"block{at}.bn"]
        var, new = (state[f"block{at}.bn.running_var"] + 1e-5 for state in (pair, second))
        shift = second[f"block{at}.bn.running_mean"] - pair[f"block{at}.bn.running_mean"]
        assert row["z_max"] == pytest.approx(float((shift.abs() / var.sqrt()).max()), rel=1e-5)
        assert row["var_ratio"] == pytest.approx(float((new / var).max()), rel=1e-5)
        assert (row["state"], row["batches"], row["match"]) == ("trained", 40, "name")
        assert row["before"] == "moved"
    found = [(each["severity"], each["subject"]) for each in report["findings"]]
    assert found == [("warning", "block0.bn"), ("warning", "block3.bn")]
    assert report["verdict"] == (
        "WARN  2 warnings in 20 BatchNorm layers (see bncli rules BN611); in block3.bn "
        "running_mean and running_var are missing in the second file; in block0.bn the statistics "
        "moved and the weights did not; 16 of 20 layers were trained on for 40 batches, 2 are "
        "identical, bit for bit"
    )


def test_many_layers_are_summed_up_and_v_lists_each(run, pair):
    torch.save(trained(pair), "b.pt")
    lines = run("compare-checkpoints", "a.pt", "b.pt").stdout.splitlines()
    assert len(lines) == 10
    assert lines[6].startswith("17 more layers   trained on        40")
    told = run("compare-checkpoints", "a.pt", "b.pt", "-v", "--width", 80).stdout
    assert all(f"block{at}.bn " in told for at in range(LAYERS))
    same = run("compare-checkpoints", "a.pt", "b.pt", "--layer", "block1*", "-f", "json").report
    assert len(same["tables"]["layers"]) == 11
    assert same["verdict"] == "PASS  all 11 layers were trained on for 40 batches"


def test_53_layers_with_two_faults_are_at_most_40_lines(run, folder):
    first = network(53)
    second = trained(trained(first, range(20), weights=False), range(20, 52))
    for at in range(30, 45):
        for leaf in ("running_mean", "running_var", "num_batches_tracked"):
            second[f"block{at}.bn.{leaf}"] = first[f"block{at}.bn.{leaf}"]
    torch.save(first, "a.pt")
    torch.save(second, "b.pt")
    lines = run("compare-checkpoints", "a.pt", "b.pt", "--width", 80).stdout.splitlines()
    assert len(lines) <= 40
    text = " ".join(map(str.strip, lines))
    assert "the statistics moved, weight and bias did not: 20 layers" in text
    assert "weight and bias moved, the statistics did not move: 15 layers" in text


def test_layers_that_are_all_gone_are_lost_and_were_not_folded(run, pair):
    torch.save({name: values for name, values in pair.items() if ".bn." not in name}, "b.pt")
    result = run("compare-checkpoints", "a.pt", "b.pt", "-f", "json")
    assert result.code == ExitCode.OK
    assert {each["code"] for each in result.report["findings"]} == {"BN613"}
    assert len(result.report["findings"]) == LAYERS
    result = run("compare-checkpoints", "a.pt", "b.pt", "--expect=folded:*", "-f", "json")
    assert result.code == ExitCode.FINDING
    assert {each["code"] for each in result.report["findings"]} == {"BN620"}
    assert result.report["verdict"].endswith("20 layers are in the first file alone")
    facts = result.report["facts"]
    assert (facts["layers"], facts["other_layers"], facts["matched"]) == (LAYERS, 0, 0)


def test_what_is_expected_and_is_not_so_is_an_error(run, pair):
    torch.save(trained(pair, range(10, LAYERS)), "b.pt")
    call = ("compare-checkpoints", "a.pt", "b.pt")
    met = run(*call, "--expect=identical:block0.*", "--expect=trained:block1?.*")
    assert met.code == ExitCode.OK
    unmet = run(*call, "--expect=frozen:block*", "-f", "json")
    assert unmet.code == ExitCode.FINDING
    assert {each["subject"] for each in unmet.report["findings"]} == {
        f"block{at}.bn" for at in range(10, LAYERS)
    }
    assert {each["code"] for each in unmet.report["findings"]} == {"BN620"}
    assert run(*call, "--expect=frozen:block*", "--ignore=BN620").code == ExitCode.OK
    known = (*call, "--expect=frozen:block*", "--baseline=known.json")
    assert run(*known, "--update-baseline").code == ExitCode.OK
    assert run(*known).code == ExitCode.OK
    assert run(*call, "--expect=trained:*", "--baseline=known.json").code == ExitCode.FINDING


def test_a_glob_means_the_names_of_either_file(run, pair):
    torch.save({f"module.{k}".replace("bn", "norm"): v for k, v in pair.items()}, "b.pt")
    call = ("compare-checkpoints", "a.pt", "b.pt")
    assert run(*call, "--expect=trained:*.norm").code == ExitCode.FINDING
    assert run(*call, "--expect=trained:*.bn").code == ExitCode.FINDING
    assert run(*call, "--expect=frozen:*.norm").code == ExitCode.OK
    assert run(*call, "--layer=block7.norm", "-f", "json").report["tables"]["layers"][0][
        "name"
    ] == ("block7.bn")


def test_nothing_in_common(run, pair):
    torch.save({f"{at}.weight": torch.ones(3) for at in range(2)}, "b.pt")
    result = run("compare-checkpoints", "a.pt", "b.pt")
    assert result.code == ExitCode.NOTHING
    assert result.stdout.endswith("NOTHING  there is no BatchNorm layer in b.pt\n")
    torch.save(nn.BatchNorm1d(5).state_dict(), "b.pt")
    result = run("compare-checkpoints", "a.pt", "b.pt")
    assert result.code == ExitCode.NOTHING
    assert "NOTHING  no layer of a.pt is in b.pt: the first has block0.bn" in result.stdout
    asked = run("compare-checkpoints", "a.pt", "b.pt", "--expect", "folded:*")
    assert (asked.code, asked.stdout) == (result.code, result.stdout)
    torch.save(nn.BatchNorm1d(8).state_dict(), "a.pt")
    torch.save(nn.BatchNorm1d(8).state_dict(), "b.pt")
    report = run("compare-checkpoints", "a.pt", "b.pt", "-f", "json").report
    assert (report["facts"]["layers"], report["facts"]["matched"]) == (1, 1)
    assert report["tables"]["layers"][0]["name"] == "(the file itself)"


def test_other_architectures_say_how_few_layers_have_a_partner(run, pair):
    other = {k: v for k, v in pair.items() if int(k.split(".")[0][5:]) < 3}
    torch.save(other | {f"head.{k}": v for k, v in nn.BatchNorm1d(31).state_dict().items()}, "b.pt")
    result = run("compare-checkpoints", "a.pt", "b.pt")
    assert "3 of 20 BatchNorm layers matched, by name" in result.stdout
    assert "17 layers are in the first file alone, 1 in the second file alone" in " ".join(
        result.stdout.split()
    )
    assert "head" in result.stdout


def test_parts_of_one_file_and_other_weights(run, pair):
    torch.save({"live": trained(pair), "ema": pair, "step": 1}, "both.pt")
    result = run("compare-checkpoints", "both.pt::ema", "both.pt::live", "--weights")
    assert result.code == ExitCode.OK
    assert "both.pt::ema -> both.pt::live  20 BatchNorm layers" in result.stdout
    assert "other weights: there are none" in result.stdout
    missing = run("compare-checkpoints", "both.pt::ema", "both.pt::lives")
    assert missing.code == ExitCode.ERROR
    assert missing.stderr.count("\n") == 1
    assert "did you mean live?" in missing.stderr


@pytest.mark.parametrize("form", ["sarif", "junit", "github"])
def test_the_place_is_the_layer_of_the_second_file(run, pair, form):
    second = trained(pair, range(10, LAYERS))
    second["block3.bn.running_mean"] += 1
    torch.save(second, "b.pt")
    text = run("compare-checkpoints", "a.pt", "b.pt", "-f", form).stdout
    assert "b.pt" in text
    assert "block3.bn" in text
    assert "BN611" in text
    assert "block4.bn" not in text or form == "junit"


def test_shards_and_their_folder_are_one_model(run, pair):
    Path("sharded").mkdir()
    second = list(trained(pair).items())
    for number in (1, 2):
        some = dict(second[number - 1 :: 2])
        torch.save(some, f"sharded/net-0000{number}-of-00002.bin")
    for given in ("sharded", "sharded/net-00002-of-00002.bin"):
        report = run("compare-checkpoints", "a.pt", given, "-f", "json").report
        assert report["verdict"] == "PASS  all 20 layers were trained on for 40 batches"


def test_a_file_that_cannot_be_read_is_one_sentence(run, pair):
    Path("cut.pt").write_bytes(Path("a.pt").read_bytes()[:-300])
    for call in (("a.pt", "cut.pt"), ("cut.pt", "a.pt"), ("a.pt", "missing.pt")):
        result = run("compare-checkpoints", *call)
        assert (result.code, result.stdout) == (ExitCode.ERROR, "")
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith(("bncli: cut.pt: ", "bncli: missing.pt: "))
