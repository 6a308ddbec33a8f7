"""`bncli compute STATS.npz`: the same numbers as from the values, in any order of the files."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bncli.loaders.statistics import write_statistics
from bncli.model.capture import Capture, Propagation, WatchedLayer
from tests.commands.samples import CHANNEL_KEYS, random, table
from tests.loaders.statistics.captures import EVAL, TRAINING, model_capture, state, sums_of

EXACT = ("channel", "count", "min", "max", "nan", "inf")


@pytest.fixture
def parts(run, save):
    """A tensor, and the statistics files of what it was split into."""
    x = random(12, 3, 4, 5) * 2 + np.array([1, -50, 1e4], np.float32)[:, None, None]
    x[7, 1, 2, 3] = np.inf
    save("x.npy", x)
    names = []
    for i, (begin, end) in enumerate(itertools.pairwise((0, 1, 5, 12))):
        save("part.npy", x[begin:end])
        names.append(f"s{i}.npz")
        run("compute", "part.npy", "--save-stats", names[-1], "-q")
    return names


def same(rows, expected, exact=EXACT):
    """Whether rows agree to 1e-12, and exactly in what is counted."""
    for row, wanted in zip(rows, expected, strict=True):
        for key, value in wanted.items():
            if key in exact or value is None:
                assert row[key] == value, key
            else:
                assert row[key] == pytest.approx(value, rel=1e-12, abs=1e-12), key


@pytest.mark.parametrize("flags", [(), ("--momentum", "none", "--eps", "0.5"), ("--no-affine",)])
def test_split_files_are_the_whole(run, parts, flags):
    whole = run("compute", "x.npy", *flags, "-f", "json")
    found = run("compute", *parts, *flags, "-f", "json")
    assert found.code == whole.code == 1  # an Inf
    assert set(table(found)[0]) == set(CHANNEL_KEYS)
    same(table(found), table(whole))
    same(found.report["tables"]["output"], whole.report["tables"]["output"], ("channel",))
    facts, wanted = found.report["facts"], whole.report["facts"]
    for key in ("kind", "dtype", "channel_axis", "training", "eps", "momentum", "count"):
        assert facts[key] == wanted[key]
    assert facts["shape"] is None
    assert (facts["samples"], facts["batches"], facts["propagation"]) == (12, 3, "training")
    (finding,) = (each for each in found.report["findings"] if each["code"] == "BN001")
    assert finding["message"] == "1 Inf among 240 values per channel"


def test_any_order_gives_the_same_bytes(run, parts):
    first = run("compute", *parts, "--per-input", "-f", "json").stdout
    for order in itertools.permutations(parts):
        assert run("compute", *order, "--per-input", "-f", "json").stdout == first


def test_a_pattern_is_expanded(run, parts):
    found = run("compute", "s*.npz", "-f", "json").report
    assert found["facts"]["inputs"] == parts
    assert run("compute", "s[3-9].npz").stderr == "bncli: s[3-9].npz: no file fits this pattern.\n"


def test_merged_files_can_be_saved(run, parts):
    whole = run("compute", *parts, "--save-stats", "all.npz", "-f", "json")
    assert whole.report["facts"]["saved_stats"] == "all.npz"
    again = run("compute", "all.npz", "-f", "json")
    same(table(again), table(whole))
    assert again.report["facts"]["batches"] == 3


def test_each_file_is_shown(run, parts):
    report = run("compute", *parts, "--per-input", "--channel", "0", "-f", "json").report
    rows = report["tables"]["inputs"]
    assert [(row["input"], row["count"]) for row in rows] == list(
        zip(parts, (20, 80, 140), strict=True)
    )


@pytest.mark.parametrize("name", ["shards", "batches"])
def test_files_that_differ_more_than_chance_are_told(run, repository, folder, name):
    """As the tensors themselves would, be each file one batch or two."""
    tensors = [str(repository / f"examples/shards/batch{i}.npy") for i in (0, 1)]
    wanted = tensors
    if name == "batches":
        for tensor, half in itertools.product(tensors, (0, 1)):
            x = np.load(tensor)
            np.save(f"{Path(tensor).stem}-{half}.npy", x[half::2])
    for i, tensor in enumerate(tensors):
        halves = sorted(map(str, Path().glob(f"batch{i}-*.npy")))
        run("compute", *(halves or [tensor]), "--save-stats", f"s{i}.npz", "-q")
        wanted = sorted(map(str, Path().glob("batch*.npy"))) or tensors
    found = run("compute", "s0.npz", "s1.npz", "-f", "json").report
    wanted = run("compute", *wanted, "-f", "json").report
    same(found["tables"]["spread"], wanted["tables"]["spread"], ("channel",))
    assert [each["code"] for each in found["findings"]] == ["BN010"]
    assert found["findings"][0]["message"] == wanted["findings"][0]["message"]


def test_what_is_looked_at(run, parts):
    out = run("compute", *parts).stdout
    assert out.startswith(
        "s0.npz and 2 more  3 channels, 12 samples in 3 batches  BatchNorm2d in training, eps 1e-05"
    )
    assert out.rstrip().splitlines()[-1].startswith("FAIL")


# ---------------------------------------------------------------------------- a model's layers


@pytest.fixture
def model(folder):
    """A capture of a model: an input, stem.bn and head.bn."""
    rng = np.random.default_rng(0)
    capture = model_capture([rng.standard_normal((4, 3, 2, 2)) for _ in range(3)])
    layers = list(capture.layers)
    other = sums_of([rng.standard_normal((4, 3, 2, 2)) + 9], 3)
    layers[1] = replace(layers[1], seen={TRAINING: layers[1].seen[TRAINING], EVAL: other})
    capture = replace(capture, layers=tuple(layers))
    write_statistics("model.npz", capture)
    return capture


def test_a_layer_by_its_name_has_its_own_state(run, model):
    report = run("compute", "model.npz::stem.bn", "-f", "json").report
    layer = model.layers[1]
    rows = report["tables"]["channels"]
    assert [row["mean"] for row in rows] == layer.seen[TRAINING].mean.tolist()
    own = layer.state
    assert [row["running_mean"] for row in rows] == pytest.approx(
        (0.9 * own.running_mean + 0.1 * layer.seen[TRAINING].mean).tolist(), rel=1e-6
    )
    facts = report["facts"]
    assert (facts["layer"], facts["eps_source"]) == ("stem.bn", "file")
    assert facts["num_batches_tracked"] == own.num_batches_tracked + 1


def test_evaluation_sees_the_propagation_of_evaluation(run, model):
    report = run("compute", "model.npz::stem.bn", "--eval", "-f", "json").report
    assert report["facts"]["propagation"] == "eval"
    means = [row["mean"] for row in report["tables"]["channels"]]
    assert means == model.layers[1].seen[EVAL].mean.tolist()
    report = run("compute", "model.npz::input", "--eval", "-f", "json").report
    assert report["facts"]["propagation"] == "training"  # the only one that is there


def test_flags_stand_above_the_files_state(run, model, save):
    save("weight.npy", np.array([2.0, 3.0, 4.0]))
    flags = ("--weight", "weight.npy", "--eps", "0.1")
    facts = run("compute", "model.npz::head.bn", *flags, "-f", "json").report["facts"]
    assert (facts["eps"], facts["eps_source"]) == (0.1, "flag")
    other = run("compute", "model.npz::head.bn", "--state", "model.npz::stem.bn", "-f", "json")
    own = run("compute", "model.npz::head.bn", "-f", "json")
    rows = [table(each)[0] for each in (other, own)]
    assert rows[0]["mean"] == rows[1]["mean"]
    assert rows[0]["running_mean"] != rows[1]["running_mean"]


def test_the_state_serves_other_commands(run, model, save):
    save("x.npy", random(4, 3))
    report = run("trace", "x.npy", "--state", "model.npz::stem.bn", "--eval", "-f", "json").report
    assert report["facts"]["eps_source"] == "file"


def test_a_layer_without_running_statistics(run, folder):
    rng = np.random.default_rng(0)
    bare = state("bn", 3, rng, running_mean=None, running_var=None, num_batches_tracked=None)
    seen = {TRAINING: sums_of([rng.standard_normal((4, 3))], 3)}
    write_statistics("bare.npz", Capture((WatchedLayer("bn", 1, 3, bare, seen=seen),)))
    report = run("compute", "bare.npz", "-f", "json").report
    assert report["facts"]["track_running_stats"] is False
    assert report["tables"]["channels"][0]["running_mean"] is None


def test_a_layer_of_an_unknown_kind(run, folder):
    seen = {Propagation.EVAL: sums_of([random(4, 3)], 3)}
    write_statistics("any.npz", Capture((WatchedLayer("input", 0, 3, seen=seen),)))
    facts = run("compute", "any.npz", "-f", "json").report["facts"]
    assert (facts["kind"], facts["dtype"], facts["propagation"]) == (None, None, "eval")


# ---------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("model.npz", "model.npz: it holds 3 layers; name one as model.npz::NAME ('input', "),
        ("model.npz::bn", "model.npz: 2 layers end in 'bn'; give more of the name"),
        ("model.npz::neck", "model.npz: there is no layer 'neck' in it;"),
        ("s0.npz s0.npz", "s0.npz is given twice, but its batches can count only once."),
        ("s0.npz cut.npz", "cut.npz: it begins as a ZIP archive (as PyTorch and NumPy write) but"),
        ("s0.npz ./s0.npz", "s0.npz is given twice, but its batches can count only once."),
        ("s0.npz x.npy", "s0.npz is a statistics file and x.npy is not; give one kind of INPUT."),
        (
            "model.npz::stem.bn copy.npz::head.bn",
            "model.npz::stem.bn and the other INPUTs name several layers; give one name.",
        ),
        ("s0.npz model.npz", "s0.npz: its layers are not those of model.npz, or run in another"),
        ("s0.npz --against torch", "--against needs values, but s0.npz holds their statistics."),
        ("s0.npz --save-output y.npy", "--save-output needs values, but s0.npz holds their"),
        ("s0.npz --dtype float64", "--dtype needs values, but s0.npz holds their statistics."),
        ("s0.npz --channel-axis -1", "--channel-axis needs values, but s0.npz holds their"),
        ("s0.npz --values [[1],[2]]", "--values needs values, but s0.npz holds their statistics."),
        (
            "s0.npz --save-stats t.npz --per-batch",
            "--per-batch needs values, but s0.npz holds their statistics.",
        ),
        ("s0.npz --save-stats s0.npz", "--save-stats s0.npz: this would overwrite an input;"),
        ("empty.npz", "empty.npz::bn: nothing reached this layer."),
    ],
)
def test_refusals(run, parts, model, call, said):
    whole = Path("model.npz").read_bytes()
    Path("copy.npz").write_bytes(whole)
    Path("cut.npz").write_bytes(whole[:500])
    write_statistics("empty.npz", Capture((WatchedLayer("bn", 1, 3),)))
    result = run("compute", *call.split())
    assert (result.code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"bncli: {said}")
    assert result.stderr.count("\n") == 1
