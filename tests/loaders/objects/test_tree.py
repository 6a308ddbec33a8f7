"""Modules, dictionaries and other objects in memory, held against the same in files."""

from __future__ import annotations

import argparse
import collections
import types

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from bncli.errors import BncliError
from bncli.given import name_of, objects_given
from bncli.loaders import open_file
from tests.objects import Part, alike, run, said


class Block(nn.Module):
    """Shared layers, hidden buffers, a layer without statistics, a list, and a loose tensor."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4, eps=1e-3, momentum=None)
        self.twin = self.bn
        self.layers = nn.ModuleList(
            [nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False)]
        )
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.register_buffer("kept", torch.ones(2, dtype=torch.float16))
        self.loose = torch.ones(3)
        self.bn.training = False
        self.layers[0].momentum = 0.3


class Frozen(nn.Module):
    """As torchvision's FrozenBatchNorm2d: buffers alone, and no momentum."""

    def __init__(self):
        super().__init__()
        self.eps = 1e-5
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(4) + 0.5)


class Average:
    """A program's own object that holds a model, and itself."""

    def __init__(self):
        self.module = Block()
        self.updates = 3
        self.me = self
        self.settings = argparse.Namespace(lr=0.1, table=torch.zeros(2))


def model():
    torch.manual_seed(0)
    return nn.Sequential(Block(), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), Frozen())


def trained():
    net = model()
    steps = {n: {"momentum_buffer": x.clone()} for n, x in enumerate(net.parameters())}
    return {
        "model": net.state_dict(),
        "optimizer": {"state": steps, "param_groups": [{"params": [0, 1]}]},
        "ema": Average(),
        "epoch": 3,
        ("a", 1): [torch.ones(1), (torch.zeros(2), {"x": torch.ones(1, 1)})],
        7: collections.OrderedDict(bn=nn.BatchNorm1d(2)),
        "names": np.array(["a", "b"]),
        "arrays": {"x": np.ones((2, 3), order="F"), "y": np.ones(3, ">f8")},
        "none": None,
    }


def twice():
    shared = torch.arange(12.0)
    return {"a.weight": shared[:6], "b.weight": shared[6:], "c.weight": shared[:6], "d": shared}


ROOTS = {
    "module": model,
    "layer": lambda: nn.BatchNorm2d(4),
    "state_dict": lambda: model().state_dict(),
    "training": trained,
    "object": Average,
    "compiled": pytest.param(
        lambda: torch.compile(model(), backend="eager"), marks=pytest.mark.exhaustive
    ),
    "parallel": lambda: nn.DataParallel(model()),
    "halves": lambda: model().bfloat16(),
    "list": lambda: [torch.ones(2), torch.zeros(3)],
    "views": twice,
    "empty": dict,
}


SAID = {"from the file": "from the object", "the file stores": "the object stores"}
"""What remarks say of objects in the place of files."""


@pytest.mark.parametrize("root", ROOTS.values(), ids=[*ROOTS])
def test_an_object_holds_what_its_file_holds(root, tmp_path):
    value, path = root(), tmp_path / "x.pt"
    torch.save(value, path)
    expected = open_file(path)
    with objects_given():
        file = open_file(name_of(value, "x"))
    assert [*file.tensors] == [*expected.tensors]
    assert file.modules == expected.modules
    assert file.skipped == expected.skipped
    for name, ref in file.tensors.items():
        other = expected.tensors[name]
        assert (ref.name, ref.shape, ref.dtype) == (name, other.shape, other.dtype)
        np.testing.assert_array_equal(ref.read(), other.read())
    assert shared(file) == shared(expected)


LEAVES = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=3),
    st.sampled_from(["running_mean", "a.b", ""]),
    st.builds(lambda n: torch.arange(float(n)), st.integers(0, 4)),
    st.builds(lambda n: np.arange(n)[::1], st.integers(0, 4)),
    st.just(SHARED := torch.ones(3)),
    st.builds(lambda n: nn.BatchNorm1d(n, affine=n > 1), st.integers(1, 2)),
)
KEYS = st.one_of(
    st.text(max_size=3), st.integers(0, 3), st.tuples(st.integers(0, 1)), st.booleans()
)
TREES = st.recursive(
    LEAVES,
    lambda each: st.one_of(
        st.lists(each, max_size=3),
        st.tuples(each, each),
        st.dictionaries(KEYS, each, max_size=4),
        st.builds(collections.OrderedDict, st.dictionaries(KEYS, each)),
        st.builds(types.SimpleNamespace, a=each, b=each),
    ),
    max_leaves=12,
)


@given(TREES)
@settings(max_examples=25, deadline=None, suppress_health_check=[*HealthCheck])
def test_any_object_holds_what_its_file_holds(tmp_path, value):
    value = {"root": value}
    torch.save(value, path := tmp_path / "x.pt")
    expected = open_file(path)
    with objects_given():
        file = open_file(name_of(value))
    assert [*file.tensors] == [*expected.tensors]
    assert file.modules == expected.modules
    assert file.skipped == expected.skipped
    for name, ref in file.tensors.items():
        np.testing.assert_array_equal(ref.read(), expected.tensors[name].read())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, IMAGES)])
def test_a_program_of_torchscript_holds_what_its_file_holds(make, tmp_path):
    program = make(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=1e-3)).eval())
    program.save(path := tmp_path / "x.pt")
    expected = open_file(path)
    with objects_given():
        file = open_file(name_of(program))
    assert file.modules == expected.modules
    assert [*file.tensors] == [*expected.tensors]
    for name, ref in file.tensors.items():
        np.testing.assert_array_equal(ref.read(), expected.tensors[name].read())


IMAGES = torch.randn(2, 3, 6, 6)


def shared(file):
    """Which tensors are one, by the first name of each."""
    first = {}
    return [first.setdefault(ref.place, name) for name, ref in file.tensors.items() if ref.place]


@pytest.mark.parametrize("root", ["module", "layer", "state_dict", "training"])
def test_a_report_of_an_object_is_that_of_its_file(root, tmp_path):
    value, path = ROOTS[root](), str(tmp_path / "x.pt")
    torch.save(value, path)
    expected = said("inspect_checkpoint", path)
    found = alike(said("inspect_checkpoint", value), {f"<{type(value).__name__}>": path})
    assert found["facts"].pop("container") == "memory"
    assert expected["facts"].pop("container") == "torch-zip"
    assert found == alike(expected, SAID)


def test_checkpoints_are_compared_whether_they_are_files_or_objects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, after = model(), model()
    with torch.no_grad():
        after[0].bn.running_mean += 1
        after[1][1].weight *= 2
    paths = ["before.pt", "after.pt"]
    torch.save(before, paths[0])
    torch.save(after.state_dict(), paths[1])
    expected = alike(said("compare_checkpoints", *paths), {"are in both files": "are in both"})
    assert "in both" in str(expected["remarks"])
    objects = said("compare_checkpoints", before, after.state_dict())
    assert alike(objects, {"<Sequential>": paths[0], "<OrderedDict>": paths[1]}) == expected
    mixed = said("compare_checkpoints", paths[0], after.state_dict())
    assert alike(mixed, {"<OrderedDict>": paths[1]}) == expected


def test_several_objects_are_as_several_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = [model().state_dict() for _ in range(3)]
    values[2]["0.bn.running_var"] -= 5
    paths = [f"{n}.pt" for n in range(3)]
    for value, path in zip(values, paths, strict=True):
        torch.save(value, path)
    names = [f"<OrderedDict{end}>" for end in ("", " 2", " 3")]
    for command in ("inspect_checkpoint", "compare_checkpoints"):
        found = alike(said(command, *values), dict(zip(names, paths, strict=True)))
        expected = said(command, *paths)
        for each in (found, expected):
            each["facts"].pop("container", None)
        assert found == alike(expected, SAID)


def test_a_layer_of_an_object_is_a_state(tmp_path):
    x = torch.randn(5, 4, 3)
    net = model()
    path = str(tmp_path / "net.pt")
    torch.save(net, path)
    expected = said("compute", x, state=f"{path}::0.bn")
    assert expected["facts"]["eps"] == 1e-3
    assert alike(said("compute", x, state=Part(net, "bn")), {"<Sequential>::bn": path})
    found = said("compute", x, state=Part(net, "0.bn"))
    assert alike(found, {"<Sequential>": path, "from the module": "from the file"}) == expected
    identified = run("identify", x, nn.BatchNorm1d(4)(x), state=Part(net, "0.bn"))
    assert "from the module" in str(identified.subject)


def test_a_dictionary_of_arrays_is_as_its_npz(tmp_path):
    rng = np.random.default_rng(0)
    values = {
        "batch_stats/stem/bn/mean": rng.normal(size=(2, 3)).astype("f4"),
        "batch_stats/stem/bn/var": rng.random((2, 3)).astype("f4"),
        "params/stem/bn/scale": np.ones((2, 3), "f4"),
        "params/stem/bn/bias": np.ones((2, 3), "f4"),
    }
    path = str(tmp_path / "x.npz")
    np.savez(path, **values)
    expected = said("inspect_checkpoint", path)
    found = alike(said("inspect_checkpoint", values), {"<dict>": path})
    assert found["facts"].pop("container") == "memory"
    assert expected["facts"].pop("container") == "npz"
    assert found == alike(expected, SAID)
    assert len(found["tables"]["layers"]) == 2
    tree = {"batch_stats": {"bn": {"mean": np.zeros(3), "var": np.ones(3)}}, "params": {}}
    layers = said("inspect_checkpoint", tree)["tables"]["layers"]
    assert [row["name"] for row in layers] == ["bn"]
    with np.load(path) as opened:
        assert len(said("inspect_checkpoint", opened)["tables"]["layers"]) == 2


class Raising(dict):
    def items(self):
        raise RuntimeError("not\ntoday \x1b[31m")


def test_an_object_whose_own_code_raises_is_one_sentence():
    with pytest.raises(BncliError) as refused:
        run("inspect_checkpoint", Raising())
    assert str(refused.value) == (
        r"<Raising>: looking into it raises RuntimeError: not today \x1b[31m."
    )


class Closed:
    @property
    def __dict__(self):
        raise OSError("the file is gone")


@pytest.mark.parametrize("value", [Closed(), {"x": Closed()}])
def test_an_object_whose_attributes_cannot_be_had_is_one_sentence(value):
    with pytest.raises(BncliError, match=r": looking into it raises OSError: the file is gone\."):
        run("inspect_checkpoint", value)


def test_objects_that_hold_each_other_are_followed_once():
    ring = {"bn": nn.BatchNorm1d(2)}
    ring["self"] = ring
    assert len(said("inspect_checkpoint", ring)["tables"]["layers"]) == 1
    unfolding = torch.ones(1)
    for _ in range(60):
        unfolding = [unfolding, unfolding]
    with pytest.raises(BncliError, match="far too long"):
        run("inspect_checkpoint", {"x": unfolding})


def test_what_holds_no_tensor_says_so():
    with pytest.raises(BncliError, match=r"^<object>: it is neither an array"):
        run("inspect_checkpoint", object())
    assert said("inspect_checkpoint", {"lr": 0.1})["exit_code"] == 3


def test_names_of_classes_and_keys_do_nothing_to_the_terminal():
    hostile = type("x\n\x1b[31m::*[a]/..", (dict,), {})
    report = said("inspect_checkpoint", hostile({"a\x1b[2J\n": nn.BatchNorm1d(2)}))
    assert report["facts"]["path"] == "<x_31m_a_..>"
    assert run("inspect_checkpoint", hostile({"bn": nn.BatchNorm1d(2)})).exit_code() != 2


def test_an_object_is_left_as_it_was():
    net = model()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [each.training for each in net.modules()]
    run("inspect_checkpoint", net)
    run("compare_checkpoints", net, net.state_dict())
    assert [each.training for each in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_modules_and_functions_among_objects_are_not_followed():
    value = {"bn": nn.BatchNorm1d(2), "torch": torch, "f": model, "kind": nn.BatchNorm1d}
    value["space"] = types.SimpleNamespace(x=torch.ones(1), torch=np)
    with objects_given():
        names = [*open_file(name_of(value)).tensors]
    assert names[-1] == "space.x"
    assert all(name.startswith(("bn.", "space.")) for name in names)
