"""The gate as a script runs it: no worsening passes, and nothing harmless stops it.

Whatever the files hold, a baseline is written of them; then one thing changes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bncli.cli import main

LEAVES = ("weight", "bias", "running_mean", "running_var")
NAMES = ("1", "3", "0.1", "bn", "module.bn", "a/b", "a.b", "layer1.bn", "layer2.bn", "layer[1].bn",
         "block 1 bn", "block 2 bn", "block channel 1", "block channel 2", "x._orig_mod.bn", "x.bn",
         "model.bn", "ema.bn")  # fmt: skip
CHANNELS = 8

Tensors = dict[str, np.ndarray]


def network(*names: str) -> Tensors:
    """Healthy layers; a layer has its own values, whatever stands beside it."""
    tensors: Tensors = {}
    for name in names:
        random = np.random.default_rng([len(name), *name.encode()])
        tensors[f"{name}.weight"] = random.uniform(0.5, 1.5, CHANNELS).astype(np.float32)
        tensors[f"{name}.bias"] = random.normal(0, 0.5, CHANNELS).astype(np.float32)
        tensors[f"{name}.running_mean"] = random.normal(0, 1, CHANNELS).astype(np.float32)
        tensors[f"{name}.running_var"] = random.uniform(0.5, 2, CHANNELS).astype(np.float32)
        tensors[f"{name}.num_batches_tracked"] = np.array(1000)
    return tensors


def spoilt(tensors: Tensors, layer: str, leaf: str, channels, value=np.nan) -> Tensors:
    changed = tensors[f"{layer}.{leaf}"].copy()
    changed[list(channels)] = value
    return tensors | {f"{layer}.{leaf}": changed}


def trained_on(tensors: Tensors) -> Tensors:
    """Other numbers, and the same faults."""
    return {
        name: value + 100
        if value.dtype == np.int64
        else (value * np.linspace(0.97, 1.03, value.size)).astype(value.dtype)
        for name, value in tensors.items()
    }


def wrapped(tensors: Tensors, prefix: str) -> Tensors:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def reordered(tensors: Tensors) -> Tensors:
    return dict(reversed(tensors.items()))


class Gate:
    """A folder with a baseline, and what the gate says of what lies there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *argv: object, at: str = "ci/known.json", update: bool = False) -> int:
        if update:
            (self.folder / "ci").mkdir(exist_ok=True)
        flags = ["--baseline", at, "-q", "--fail-on", "info", *["--update-baseline"] * update]
        code = main([*map(str, argv), *flags])
        assert code in ((0,) if update else (0, 1, 2))
        return int(code)

    def save(self, name: str, tensors: Tensors | np.ndarray) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(tensors, dict):
            np.savez(path, **tensors)
        else:
            np.save(path, tensors)
        return name

    def entries(self) -> list[dict]:
        return json.loads((self.folder / "ci/known.json").read_text())["findings"]


@pytest.fixture
def gate(folder, capsys):
    return Gate(folder)


@pytest.fixture
def fresh(tmp_path_factory, monkeypatch, capsys):
    """A gate in a folder of its own for each example."""

    def fresh() -> Gate:
        folder = tmp_path_factory.mktemp("gate")
        monkeypatch.chdir(folder)
        return Gate(folder)

    return fresh


PROPERTY = settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # an example is made of many runs
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

layers = st.lists(st.sampled_from(NAMES), min_size=2, max_size=6, unique=True)
some_channels = st.sets(st.integers(0, CHANNELS - 1), min_size=1, max_size=4)
values = st.sampled_from([np.nan, np.inf])
leaves = st.sampled_from(LEAVES)
WRAPPERS = ("module.", "_orig_mod.", "state_dict.", "model.", "state_dict.module.")


@PROPERTY
@given(layers, st.data())
def test_a_checkpoint(fresh, names, data):
    """Any layers, any of them with NaN or Inf: then one change, harmless or for the worse."""
    gate = fresh()
    healthy = network(*names)
    # `bn` wrapped in `model` is called as another layer was: no name tells them apart.
    wrappers = st.sampled_from(
        [each for each in WRAPPERS if not {each + name for name in names} & set(names)]
    )
    tensors = healthy
    faulty = data.draw(st.lists(st.sampled_from(names), max_size=len(names) - 1, unique=True))
    where = {}
    for name in faulty:
        leaf, channels, value = data.draw(leaves), data.draw(some_channels), data.draw(values)
        where[name] = leaf, channels, value
        tensors = spoilt(tensors, name, leaf, channels, value)
    path = gate.save("run1/ck.npz", tensors)

    def judged(changed: Tensors) -> int:
        gate.save(path, changed)
        return gate("inspect-checkpoint", path)

    assert gate("inspect-checkpoint", path, update=True) == 0
    assert judged(tensors) == 0
    for harmless in (trained_on, reordered, lambda same: wrapped(same, data.draw(wrappers))):
        assert judged(harmless(tensors)) == 0
    assert judged(wrapped(reordered(trained_on(tensors)), data.draw(wrappers))) == 0
    assert judged(healthy) == 0

    well = [name for name in names if name not in faulty]
    added = data.draw(st.sampled_from(well))
    fault = data.draw(leaves), data.draw(some_channels), data.draw(values)
    assert judged(spoilt(tensors, added, *fault)) == 1
    assert judged(wrapped(trained_on(spoilt(tensors, added, *fault)), data.draw(wrappers))) == 1
    for name, (leaf, channels, value) in where.items():
        repaired = tensors | {f"{name}.{leaf}": healthy[f"{name}.{leaf}"]}
        assert judged(spoilt(repaired, added, leaf, channels, value)) == 1  # moved
        more = data.draw(st.sampled_from(sorted(set(range(CHANNELS)) - channels)))
        assert judged(spoilt(tensors, name, leaf, [more], value)) == 1  # enlarged
        elsewhere = data.draw(st.sampled_from([other for other in LEAVES if other != leaf]))
        assert judged(spoilt(tensors, name, elsewhere, channels, value)) == 1
    whole = gate.save("run2/ck.npz", tensors)
    assert gate("inspect-checkpoint", whole) == bool(faulty)  # another file
    gate.save(path, tensors)
    assert gate("inspect-checkpoint", "run1/ck.npz", "run2/ck.npz") == bool(faulty)
    data_on_disk = (gate.folder / path).read_bytes()
    (gate.folder / path).write_bytes(data_on_disk[:-100])
    assert gate("inspect-checkpoint", path) == 2  # unreadable
    assert gate("inspect-checkpoint", path, whole) == 2


@PROPERTY
@given(layers, st.data())
def test_what_was_chosen_excuses_nothing_else(fresh, names, data):
    """A baseline of one layer, by FILE::NAME or by --layer, knows that layer."""
    gate = fresh()
    leaf, channels = data.draw(leaves), data.draw(some_channels)
    one, *others = names
    tensors = spoilt(network(*names), one, leaf, channels)
    path = gate.save("ck.npz", tensors)
    chosen = data.draw(st.sampled_from([[f"{path}::{one}"], [path, "--layer", one]]))
    gate("inspect-checkpoint", *chosen, update=True)
    assert gate("inspect-checkpoint", *chosen) == 0
    assert gate("inspect-checkpoint", path) == 0
    before = gate.entries()
    for other in others:
        gate.save(path, spoilt(network(*names), other, leaf, channels))
        assert gate("inspect-checkpoint", path) == 1
        gate.save(path, spoilt(tensors, other, leaf, channels))
        assert gate("inspect-checkpoint", path) == 1
        assert gate("inspect-checkpoint", f"{path}::{other}") == 1
    gate("inspect-checkpoint", f"{path}::{others[-1]}", update=True)
    assert all(entry in gate.entries() for entry in before)
    assert gate("inspect-checkpoint", path) == 0


@pytest.mark.parametrize(
    ("written", "now", "code"),
    [((10, 11), (10, 11), 0), ((10, 11), (2, 11), 1), ((10, 11), (9, 11), 1),
     ((10, 11), (10, 53), 1), ((10, 11), (12, 11), 1), ((10, 11), (11, 11), 0),
     ((2, 11), (10, 11), 0), ((13, 11), (12, 11), 0), ((13, 11), (14, 11), 1)],
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


@PROPERTY
@given(st.sets(st.integers(0, 3), max_size=2), values, st.data())
def test_a_tensor(fresh, bad, value, data):
    """NaN and Inf in a batch: known in their channels, in this file, under this name."""
    gate = fresh()
    x = np.random.default_rng(0).normal(2, 1, (16, 4, 5)).astype(np.float32)
    spoilt_x = x.copy()
    spoilt_x[3, sorted(bad), 1] = value
    save = data.draw(st.sampled_from(["x.npy", "x.npz"]))
    name = "x.npz::3" if save == "x.npz" else save

    def put(array, path=save):
        gate.save(path, array if path.endswith("y") else {"1": array, "3": array})

    def judged(array):
        put(array)
        return gate("compute", name)

    put(spoilt_x)
    gate("compute", name, update=True)
    assert judged(spoilt_x) == 0
    assert judged(spoilt_x[::-1].copy()) == 0
    assert judged(np.where(np.isfinite(spoilt_x), spoilt_x * 1.01, spoilt_x)) == 0
    assert judged(x) == 0
    more = data.draw(st.sampled_from(sorted(set(range(4)) - bad)))
    worse = spoilt_x.copy()
    worse[0, more, 0] = value
    assert judged(worse) == 1
    everywhere = spoilt_x.copy()
    everywhere[0, :, 0] = value
    assert judged(everywhere) == 1
    if bad:
        other = np.where(np.isfinite(spoilt_x), spoilt_x, -np.inf if np.isnan(value) else np.nan)
        assert judged(other) == 1
        put(spoilt_x)
        put(spoilt_x, "y.npy")
        assert gate("compute", "y.npy") == 1
        assert gate("compute", name, "y.npy") == 1
        if save == "x.npz":
            assert gate("compute", "x.npz::1") == 1


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
        assert [process.wait(60) for process in running] == [0] * 4
    found = json.loads((gate.folder / "known.json").read_text())["findings"]
    assert sorted({entry["file"] for entry in found}) == sorted(files)
    assert sorted(path.name for path in gate.folder.iterdir()) == sorted([*files, "known.json"])
