"""The gate as a script runs it, command by command."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from bncli.cli import main
from tests.gate.gates import CHANNELS, network, spoilt


@pytest.mark.parametrize(
    ("written", "now", "code"),
    [((10, 11), (10, 11), 0), ((10, 11), (2, 11), 1), ((10, 11), (9, 11), 1),
     ((10, 11), (10, 53), 1), ((10, 11), (12, 11), 1), ((10, 11), (11, 11), 0),
     ((2, 11), (10, 11), 0), ((2, 11), (12, 13), 1), ((13, 11), (12, 11), 0),
     ((13, 11), (14, 11), 1)],
)  # fmt: skip
def test_the_number_of_layers_expected(gate, written, now, code):
    def judged(found, expected, **more):
        path = gate.save("ck.npz", network(*(f"block.{n}.bn" for n in range(found))))
        return gate("inspect-checkpoint", path, "--expect-layers", expected, **more)

    judged(*written, update=True)
    assert judged(*now) == code


def test_a_pair_of_equal_layers_excuses_no_third(gate):
    def judged(*equal, names=("a.bn", "b.bn", "c.bn", "d.bn"), order=1, **more):
        tensors = network(*names[::order])
        for name in equal[1:]:
            for leaf in ("running_mean", "running_var"):
                tensors[f"{name}.{leaf}"] = tensors[f"{equal[0]}.{leaf}"]
        return gate("inspect-checkpoint", gate.save("ck.npz", tensors), **more)

    judged("b.bn", "c.bn", update=True)
    assert judged("b.bn", "c.bn") == 0
    assert judged("c.bn", "b.bn", order=-1) == 0
    assert judged("b.bn", "c.bn", "a.bn") == 1
    assert judged("b.bn", "c.bn", "d.bn") == 1
    assert judged("a.bn", "d.bn") == 1
    judged("b.bn", "c.bn", "a.bn", update=True)
    assert judged("c.bn", "b.bn") == 0


def test_the_tensors_of_diff(gate):
    """Digits are names; what is missing is known by name; EXPECTED is part of the place."""

    def pair(wrong=(), missing=(), extra=(), prefix="", size=1.0):
        actual = {f"{prefix}{n}": np.arange(4.0) for n in range(8)}
        expected = {name: value.copy() for name, value in actual.items()}
        for n in wrong:
            actual[f"{prefix}{n}"] = actual[f"{prefix}{n}"] + size
        for n in missing:
            del actual[f"{prefix}{n}"]
        for n in extra:
            actual[f"{prefix}{n}"] = np.ones(3)
        gate.save("a.npz", actual)
        gate.save("b.npz", expected)
        gate.save("c.npz", expected)
        return "a.npz", "b.npz"

    def judged(**faults):
        return gate("diff", *pair(**faults))

    gate("diff", *pair(wrong=[1], missing=[2, 3]), update=True)
    assert judged(wrong=[1], missing=[2, 3]) == 0
    assert judged(wrong=[1], missing=[2, 3], size=3.0) == 0
    assert judged(wrong=[1], missing=[3]) == 0
    assert judged(wrong=[1], missing=[2, 3], prefix="module.") == 0
    assert judged(wrong=[3]) == 1
    assert judged(wrong=[1, 3], missing=[2]) == 1
    assert judged(missing=[4, 5, 6, 7]) == 1
    assert judged(missing=[2, 3, 4]) == 1
    assert judged(extra=[2]) == 1  # of another shape, and not missing
    assert judged(missing=[2, 3], extra=["2x"]) == 1
    pair(wrong=[1], missing=[2, 3])
    assert gate("diff", "a.npz", "c.npz") == 1
    assert gate("diff", "b.npz", "a.npz") == 1
    assert gate("diff", "a.npz::1", "b.npz::2") == 1


def test_tensors_beyond_those_that_get_a_finding_of_their_own(gate):
    """Which of many tensors are the worst changes by drift; which ones differ does not."""

    def judged(factors, **more):
        gate.save("a.npz", {str(n): np.ones(3) + f for n, f in factors.items()})
        gate.save("b.npz", {str(n): np.ones(3) for n in range(40)})
        return gate("diff", "a.npz", "b.npz", **more)

    every = dict.fromkeys(range(40), 0.0)
    wrong = {n: 1.0 + n for n in range(30)}
    judged(every | wrong, update=True)
    assert judged(every | wrong) == 0
    assert judged(every | {n: 40.0 - n for n in range(30)}) == 0
    assert judged(every | dict.fromkeys(range(5), 1.0)) == 0
    assert judged(every | wrong | {35: 5.0}) == 1
    assert judged(every | {35: 5.0}) == 1


def test_the_output_that_is_explained(gate):
    x = np.random.default_rng(0).normal(2, 3, (64, 3)).astype(np.float32)
    good = ((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)).astype(np.float32)
    for name, array in (("x", x), ("good", good), ("y", good + np.sin(x)), ("z", good + np.cos(x))):
        gate.save(f"{name}.npy", array)
    gate("identify", "x.npy", "good.npy", update=True)
    assert gate("identify", "x.npy", "good.npy") == 0
    assert gate("identify", "x.npy", "y.npy") == 1
    gate("identify", "x.npy", "y.npy", update=True)
    assert gate("identify", "x.npy", "y.npy") == 0
    assert gate("identify", "x.npy", "z.npy") == 1


def test_the_layer_of_a_pass_is_part_of_the_place(gate):
    x = np.random.default_rng(0).normal(size=(64, CHANNELS)).astype(np.float32)
    gate.save("x.npy", x)
    gate.save("ck.npz", spoilt(spoilt(network("1", "3"), "1", "bias", [1]), "3", "bias", [1]))
    state = ["compute", "x.npy", "--state"]
    gate(*state, "ck.npz::1", update=True)
    assert gate(*state, "ck.npz::1") == 0
    assert gate(*state, "ck.npz::3") == 1
    assert gate(*state, "ck.npz::1", "--eval") == 1
    gate.save("other.npz", spoilt(network("1"), "1", "bias", [1]))
    assert gate(*state, "other.npz::1") == 1
    gate.save("ck.npz", spoilt(network("1", "3"), "1", "bias", [1, 2]))
    assert gate(*state, "ck.npz::1") == 1


def test_the_steps_of_a_simulation(gate):
    """Which channels a warning names changes by drift; NaN in more of them is new."""
    batches = np.random.default_rng(0).normal(size=(3, 16, 4)).astype(np.float32)
    bad = batches.copy()
    bad[1, 2, 1] = np.nan

    def judged(array, name="b.npy", **more):
        path = gate.save(name, array)
        return gate("simulate-ema", path, "--batch-axis", 0, **more)

    judged(bad, update=True)
    assert judged(bad) == 0
    assert judged(bad * np.float32(1.01)) == 0
    worse = bad.copy()
    worse[2, 0, 3] = np.nan
    assert judged(worse) == 1
    assert judged(bad, "c.npy") == 1


def test_another_working_folder(gate, monkeypatch):
    path = gate.save("models/a.npz", spoilt(network("1", "3"), "1", "bias", [1]))
    gate("inspect-checkpoint", path, update=True)
    known = str(gate.folder / "ci/known.json")
    monkeypatch.chdir(gate.folder / "models")
    assert gate("inspect-checkpoint", "a.npz", at=known) == 0
    assert gate("inspect-checkpoint", "a.npz", at="../ci/known.json") == 0
    assert gate("inspect-checkpoint", gate.folder / "models/a.npz", at=known) == 0
    elsewhere = gate.folder.with_name(f"{gate.folder.name}-checkout")
    gate.folder.rename(elsewhere)
    monkeypatch.chdir(elsewhere)
    assert gate("inspect-checkpoint", "models/a.npz", at="ci/known.json") == 0
    monkeypatch.chdir(elsewhere / "ci")
    assert gate("inspect-checkpoint", "../models/a.npz", at="known.json") == 0


def test_an_ignored_layer_is_no_other(gate):
    names = ("layer1", "layer[1]", "bn", "module.bn", "3", "a/b", "a.b")
    for own in names:
        for faulty in names:
            path = gate.save("ck.npz", spoilt(network(*names), faulty, "bias", [1]))
            ignored = f"BN201:{own}"
            code = main(["inspect-checkpoint", path, "-q", "--ignore", ignored])
            # A glob with brackets means both readings of it.
            assert code == (own != faulty and (own, faulty) != ("layer[1]", "layer1"))
            assert main(["inspect-checkpoint", path, "-q", "--select", ignored]) == 1 - code
    gate.save("ck.npz", spoilt(network(*names), "layer[1]", "bias", [1]))
    assert main(["inspect-checkpoint", "ck.npz", "-q", "--layer", "layer[1]"]) == 1
    assert main(["inspect-checkpoint", "ck.npz", "-q", "--eps", "layer[1]=1e-3"]) == 1
    only = gate.save("only.npz", network("x[0].bn", "y"))
    assert main(["inspect-checkpoint", only, "-q", "--layer", "x[0].*"]) == 0
    assert main(["inspect-checkpoint", only, "-q", "--momentum", "x[0].*=0.2"]) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="the processes are started by the shell's way")
def test_processes_that_update_one_baseline_lose_nothing(gate):
    """Twelve files, four at a time."""
    x = np.full((4, 3), np.nan, np.float32)
    files = [gate.save(f"{n}.npy", x) for n in range(12)]
    command = [sys.executable, "-m", "bncli", "compute", "FILE", "-q"]
    command += ["--baseline", "known.json", "--update-baseline"]
    for start in range(0, 12, 4):
        running = [
            subprocess.Popen([part if part != "FILE" else file for part in command])
            for file in files[start : start + 4]
        ]
        assert [process.wait(1800) for process in running] == [0] * 4
    found = json.loads((gate.folder / "known.json").read_text("utf-8"))["findings"]
    assert sorted({entry["file"] for entry in found}) == sorted(files)
    assert sorted(path.name for path in gate.folder.iterdir()) == sorted([*files, "known.json"])


def test_a_thing_made_in_yet_another_way_is_new(gate):
    x = np.random.default_rng(0).normal(2, 3, (64, 3))

    def judged(ddof, eps, **more):
        made = (x - x.mean(0)) / np.sqrt(x.var(0, ddof=ddof) + eps)
        gate.save("y.npy", made)
        return gate("identify", "x.npy", "y.npy", **more)

    gate.save("x.npy", x)
    judged(1, 1e-5, update=True)
    assert judged(1, 1e-5) == 0
    assert judged(0, 1e-5) == 0  # as PyTorch does
    assert judged(0, 0.123) == 1


@pytest.mark.parametrize("command", ["compute", "trace", "compare-norms"])
def test_a_tensor_is_known_by_its_name_in_every_command(gate, command):
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    x[2, 1] = np.nan
    gate.save("x.npz", {"1": x, "3": x})
    gate(command, "x.npz::1", update=True)
    assert gate(command, "x.npz::1") == 0
    assert gate(command, "x.npz::3") == 1


def test_more_of_a_layer_that_is_missing_misshapen_or_unreadable_is_new(gate):
    """One tensor of a layer is known to be odd, and then the next one is, too."""
    whole = network("1", "3", "5")

    def judged(*odd, make, **more):
        tensors = dict(whole)
        for leaf in odd:
            make(tensors, f"1.{leaf}")
        return gate("inspect-checkpoint", gate.save("ck.npz", tensors), **more)

    def absent(tensors, name):
        del tensors[name]

    def misshapen(tensors, name):
        tensors[name] = np.ones(5, np.float32)

    def unreadable(tensors, name):
        tensors[name] = tensors[name].astype(np.complex64)

    for make in (absent, misshapen, unreadable):
        judged("running_var", make=make, update=True)
        assert judged("running_var", make=make) == 0
        assert judged("running_var", "running_mean", make=make) == 1
        judged("running_mean", "running_var", make=make, update=True)
        assert judged("running_var", "running_mean", make=make) == 0


def test_nan_where_a_tensor_differed_already_is_new(gate):
    """Another number is drift; NaN is not, and neither is NaN in more channels."""

    def judged(change, tensors=1, **more):
        expected = {str(n): np.arange(12.0).reshape(4, 3) for n in range(tensors)}
        actual = {name: value + 1 for name, value in expected.items()}
        change(actual)
        gate.save("a.npz", actual)
        gate.save("b.npz", expected)
        return gate("diff", "a.npz::0" if tensors == 1 else "a.npz", "b.npz", **more)

    def nan(*channels, of=(0,), size=0.0):
        def change(actual):
            for n in of:
                actual[str(n)] += size
                actual[str(n)][:, list(channels)] = np.nan

        return change

    judged(nan(), update=True)
    assert judged(nan(size=3)) == 0
    assert judged(nan(1)) == 1
    judged(nan(1), update=True)
    assert judged(nan(1, size=2)) == 0
    assert judged(nan(1, 2)) == 1
    assert judged(nan(0)) == 1
    judged(nan(1, of=range(30)), tensors=40, update=True)
    assert judged(nan(1, of=range(30)), tensors=40) == 0
    assert judged(nan(1, of=range(15, 30)), tensors=40) == 0
    assert judged(nan(1, of=[*range(30), 35]), tensors=40) == 1


def test_to_ignore_one_older_code_is_not_to_ignore_all_that_was_found(gate):
    """Memory that was never filled was a negative variance and a tiny one: both must be known."""
    tensors = network("1", "3", "5")
    tensors["3.running_var"][:3] = 1e-38, 1e30, -1e20
    path = gate.save("ck.npz", tensors)
    gate.save("empty.npz", network("1", "3", "5"))
    gate("inspect-checkpoint", "empty.npz", update=True)
    for ignored, code in (
        ("BN401", 1), ("BN203", 1), ("BN4", 1), ("BN203,BN4", 0), ("BN209", 0), ("BN209:3", 0),
        ("BN209:5", 1), ("BN203:3,BN4:3", 0), ("BN203:3,BN4:5", 1),
    ):  # fmt: skip
        assert gate("inspect-checkpoint", path, "--ignore", f"{ignored},BN3") == code, ignored


@pytest.mark.parametrize("command", ["compute", "simulate-ema"])
def test_a_note_excuses_no_warning_of_the_same_code(gate, command):
    """By its values any image is unlike the next; that batches are sorted is another matter."""
    random = np.random.default_rng(0)
    means = random.normal(0, 3, 160)
    batches = [f"{n}.npy" for n in range(8)]

    def judged(means, **more):
        for path, part in zip(batches, np.split(means, 8), strict=True):
            x = part[:, None, None, None] + random.normal(0, 0.1, (20, 2, 5, 5))
            gate.save(path, x.astype(np.float32))
        return gate(command, *batches, **more)

    judged(means, update=True)
    assert judged(means) == 0
    assert judged(np.sort(means)) == 1
    judged(np.sort(means), update=True)
    assert judged(np.sort(means)) == 0
    assert judged(means) == 0
