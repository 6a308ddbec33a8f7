"""Every tensor by its path, however its objects hold each other."""

import argparse
import collections
import datetime as dt
import pathlib
import types
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from bncli.errors import CorruptFileError
from bncli.loaders import torch_tree

from .files import saved
from .pickles import dictionary, integer, tensor, text, torch_zip
from .test_torch_zip import opened


class Custom:
    def __init__(self, **state):
        self.__dict__.update(state)


class Slotted:
    __slots__ = ("weight",)


class Pair(NamedTuple):
    a: object
    b: object


class Average:
    """A program's own object around a network, as those that keep a moving average."""

    def __init__(self, net):
        self.net = net


def test_nested_dictionaries_stay_apart_by_path(tmp_path):
    state = {"bn.running_mean": torch.zeros(2), "bn.running_var": torch.ones(2)}
    checkpoint = {
        "epoch": 3,
        "state_dict": state,
        "model": {"ema": state, "net": collections.OrderedDict(a=torch.tensor(1))},
        "list": [torch.tensor(5), (torch.tensor(6), {7: torch.tensor(8)})],
        "": torch.tensor(9),
    }
    file = opened(tmp_path, saved(checkpoint))
    assert list(file.tensors) == [
        "state_dict.bn.running_mean", "state_dict.bn.running_var",
        "model.ema.bn.running_mean", "model.ema.bn.running_var", "model.net.a",
        "list.0", "list.1.0", "list.1.1.7", "",
    ]  # fmt: skip
    assert file.tensors["list.1.1.7"].read() == 8


def test_two_paths_that_spell_the_same_are_both_listed(tmp_path):
    file = opened(tmp_path, saved({"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}}))
    assert len(file.tensors) == 2
    assert sorted(int(ref.read()) for ref in file.tensors.values()) == [1, 2]


def test_parts_that_are_shared_many_times_and_long_lists_are_honest(tmp_path):
    state = {f"layer{n}.weight": torch.tensor(n) for n in range(300)}
    shared = {f"copy{n}": state for n in range(6)}
    numbers = {n: float(n) for n in range(50_000)} | {"w": torch.tensor(1)}
    file = opened(tmp_path, saved({"shared": shared, "numbers": numbers}))
    assert len(file.tensors) == 6 * 300 + 1
    assert file.tensors["shared.copy5.layer7.weight"].read() == 7


def test_whatever_else_is_in_the_file_does_not_spoil_it(tmp_path):
    slotted = Slotted()
    slotted.weight = torch.tensor(4)
    circular = Custom(tensor=torch.tensor(5))
    circular.me = circular
    checkpoint = {
        "args": argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("a/b")),
        "time": dt.datetime(2020, 1, 2, tzinfo=dt.timezone.utc),
        "best": np.float64(0.3),
        "array": np.arange(3),
        "default": collections.defaultdict(list, a=[torch.tensor(1)]),
        "counter": collections.Counter("aab"),
        "set": {1, 2},
        "frozen": frozenset({3}),
        "bytes": b"abc" * 100,
        "array of bytes": bytearray(b"abc"),
        "big": 1 << 5_000,
        "complex": 1j,
        "function": torch.nn.functional.relu,
        "namespace": types.SimpleNamespace(t=torch.tensor(2)),
        "pair": Pair(torch.tensor(3), 0),
        "slotted": slotted,
        "circular": circular,
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "size": torch.Size([1]),
        "generator": torch.get_rng_state(),
        "parameter": torch.nn.Parameter(torch.tensor(6.0)),
        "slice": slice(1, 2),
        "range": range(3),
        "ellipsis": ...,
    }
    for protocol in (2, 4):
        file = opened(tmp_path, saved(checkpoint, pickle_protocol=protocol))
        found = {k: int(r.read()) for k, r in file.tensors.items() if r.ndim == 0}
        assert found == {
            "default.a.0": 1, "namespace.t": 2, "pair.0": 3, "slotted.weight": 4,
            "circular.tensor": 5, "parameter": 6,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("hold", "inside"),
    [
        (Average, "net"),
        (lambda net: types.SimpleNamespace(net=net), "net"),
        (lambda net: collections.deque([net]), "0"),
        (lambda net: [net], "0"),
    ],
    ids=["object", "namespace", "deque", "list"],
)
def test_one_object_under_two_keys_is_listed_under_each(hold, inside, tmp_path):
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    held = hold(net)
    file = opened(tmp_path, saved({"first": held, "model_ema": held}))
    assert list(file.tensors) == [
        f"{key}.{inside}.{name}" for key in ("first", "model_ema") for name in net.state_dict()
    ]
    assert list(file.modules) == [f"first.{inside}.1", f"model_ema.{inside}.1"]


def test_objects_that_hold_each_other_are_entered_once(tmp_path):
    net = nn.Sequential(nn.BatchNorm1d(3))
    objects = [Average(net) for _ in range(12)]
    for one in objects:
        one.others = objects
    file = opened(tmp_path, saved({"a": objects[0], "b": objects[1]}))
    assert "a.net.0.weight" in file.tensors
    assert len(file.tensors) <= 12 * len(net.state_dict())


UNFOLDS = "refer to each other more often or more deeply"


def read(tmp_path, value):
    """The names in an archive around the opcodes of one value."""
    return list(opened(tmp_path, torch_zip(value)).tensors)


def test_as_deep_as_the_limit_and_no_deeper(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_tree, "DEEPEST", 5)
    value = tensor()
    for _ in range(5):
        value = b"](" + value + b"e"
    assert read(tmp_path, value) == ["0.0.0.0.0"]
    with pytest.raises(CorruptFileError, match=UNFOLDS):
        read(tmp_path, b"](" + value + b"e")


def test_names_as_long_as_the_limit_and_no_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_tree, "LONGEST_NAME", 9)
    assert read(tmp_path, dictionary(abcdefg=b"](" + tensor() + b"e")) == ["abcdefg.0"]
    with pytest.raises(CorruptFileError, match=UNFOLDS):
        read(tmp_path, dictionary(abcdefgh=b"](" + tensor() + b"e"))


def test_all_names_together_are_bounded(tmp_path, monkeypatch):
    """The root, which has no name, a list and two tensors lead: 4 letters for each of the four."""
    monkeypatch.setattr(torch_tree, "FREE_LETTERS", 0)
    monkeypatch.setattr(torch_tree, "LETTERS_A_LEAD", 4)
    for key, fits in (("abcd", True), ("abcde", False)):  # 4 + 6 + 6, and 5 + 7 + 7
        value = dictionary(**{key: b"](" + tensor() + tensor() + b"e"})
        if fits:
            assert read(tmp_path, value) == ["abcd.0", "abcd.1"]
        else:
            with pytest.raises(CorruptFileError, match=UNFOLDS):
                read(tmp_path, value)


def test_paths_that_sharing_multiplies_are_bounded(tmp_path, monkeypatch):
    """Lists of the same list twice, fifteen deep, lead to one tensor in 32,768 ways."""
    value = b"](" + tensor() + b"e"
    for level in range(15):
        value = b"](" + value + b"q" + bytes([level]) + b"h" + bytes([level]) + b"e"
    with pytest.raises(CorruptFileError, match=UNFOLDS):
        read(tmp_path, value)
    few = b"](" + tensor() + b"e"
    for level in range(3):
        few = b"](" + few + b"q" + bytes([level]) + b"h" + bytes([level]) + b"e"
    assert len(read(tmp_path, few)) == 8
    monkeypatch.setattr(torch_tree, "FREE_STEPS", -1_000)
    monkeypatch.setattr(torch_tree, "STEPS_AN_EDGE", 0)
    with pytest.raises(CorruptFileError, match=UNFOLDS):
        read(tmp_path, few)
    monkeypatch.setattr(torch_tree, "STEPS_AN_EDGE", 200)
    assert len(read(tmp_path, few)) == 8


def test_more_tensors_than_the_bytes_of_a_pickle_can_make(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_tree, "FREE_TENSORS", 0)
    value = dictionary(**{f"k{n}": tensor() for n in range(9)})
    assert len(read(tmp_path, value)) == 9
    monkeypatch.setattr(torch_tree, "BYTES_A_TENSOR", len(value) // 8)
    with pytest.raises(CorruptFileError, match=UNFOLDS):
        read(tmp_path, value)


def test_names_that_paths_share_are_numbered(tmp_path):
    """Three paths spell a.b, and a fourth what the second would be called."""
    inner = dictionary(b=tensor())
    value = b"}(" + b"".join(
        (text("a.b"), tensor(), text("a"), inner, text("a.b (1)"), tensor(), integer(1), tensor(),
         text("1"), tensor())
    ) + b"u"  # fmt: skip
    assert read(tmp_path, value) == ["a.b", "a.b (1)", "a.b (1) (2)", "1", "1 (4)"]
