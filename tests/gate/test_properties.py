"""No worsening passes the gate, and nothing harmless stops it, whatever the files hold.

A baseline is written of a report; then one thing changes.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from bncli.gate.baseline import known_removed, update_baseline
from bncli.gate.entries import read_baseline
from bncli.report import Finding, Member, Report
from tests.findings import finding, report
from tests.gate.gates import (
    CHANNELS,
    LEAVES,
    NAMES,
    Tensors,
    network,
    reordered,
    spoilt,
    trained_on,
    wrapped,
)
from tests.sampling import examples

PROPERTY = examples(
    6,
    25,
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
    found = bool(gate.entries())  # a copy beside the live layer is noted without any fault
    assert found or not faulty
    assert gate("inspect-checkpoint", whole) == found  # another file
    gate.save(path, tensors)
    assert gate("inspect-checkpoint", "run1/ck.npz", "run2/ck.npz") == found
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


# ------------------------------------------------------------------ reports made by hand


subjects = st.one_of(
    st.sampled_from(NAMES),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4),
)
members = st.one_of(
    subjects,
    st.tuples(st.sampled_from(["NaN", "running_var"]), st.integers(0, 5), st.integers(6, 9)),
)
extents = st.lists(members, max_size=3, unique=True).map(tuple)
findings = st.builds(
    finding,
    st.sampled_from(["BN001", "BN201", "BN404", "BN901"]),
    subjects,
    path=st.sampled_from(["a/ck.pt", "b/ck.pt"]),
    message=st.sampled_from(["3 of 4.", "2 of 4."]),
    extent=extents,
)
OTHER_LAYER = "a layer of no other name"


def one_a_place(found: list[Finding]) -> list[Finding]:
    """The findings without those that stand at another's place."""
    return list({(each.code, each.subject, each.path): each for each in found}.values())


def as_report(found: list[Finding], more: tuple[str, ...] = ()) -> Report:
    paths = ("a/ck.pt", "b/ck.pt")
    layers = tuple(dict.fromkeys([*(each.subject for each in found), *more, OTHER_LAYER]))
    return report(*found, read=paths, checked=dict.fromkeys(paths, layers))


def enlarged(extent: tuple[Member, ...], by: Member) -> tuple[Member, ...]:
    return (*extent, by)


@examples(50, 200)
@given(st.lists(findings, min_size=1, max_size=6).map(one_a_place), st.randoms(), st.data())
def test_any_report(tmp_path_factory, found, random, data):
    """What was written is known in any order and in other words; any single worsening is not."""
    path = str(tmp_path_factory.mktemp("gate") / "b.json")
    update_baseline(path, as_report(found))
    baseline = read_baseline(path)

    def left(changed: list[Finding]) -> int:
        every = tuple(each.subject for each in found)
        return len(known_removed(as_report(changed, every), baseline, path)[0].findings)

    shuffled = random.sample(found, len(found))
    assert left(shuffled) == 0
    assert left([replace(each, message="0.1 of 7.") for each in shuffled]) == 0
    assert left([replace(each, extent=each.extent[1:]) for each in found]) == 0
    assert left(shuffled[1:]) == 0
    again = Path(path).read_text(encoding="utf-8")
    update_baseline(path, as_report(shuffled))
    assert Path(path).read_text(encoding="utf-8") == again

    at = data.draw(st.integers(0, len(found) - 1))
    one, rest = found[at], found[:at] + found[at + 1 :]
    assert left([*found, replace(one, subject=OTHER_LAYER)]) == 1  # added
    assert left([*rest, replace(one, subject=OTHER_LAYER)]) == 1  # moved
    assert left([*rest, replace(one, code="BN005")]) == 1
    for member in ("a name of no other", ("NaN", 10, 10), ("running_var", 0, 10), ("Inf", 0, 0)):
        assert left([*rest, replace(one, extent=enlarged(one.extent, member))]) == 1
    assert left([*rest, replace(one, path="c/ck.pt")]) == 1  # another file
    other = replace(one, path={"a/ck.pt": "b/ck.pt"}.get(one.path, "a/ck.pt"))
    twins = [each for each in rest if (each.code, each.subject) == (one.code, one.subject)]
    if not twins:
        assert left([*rest, other]) == 1
        assert left([*found, other]) == 1
