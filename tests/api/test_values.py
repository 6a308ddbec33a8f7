"""Values of Python become what the flags would be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import bncli
from bncli.api.values import flags_of_call
from bncli.errors import BncliError, UsageError
from bncli.given import object_of, objects_given

INPUTS = {"diagnose": {"given": ("s.npz",)}, "inspect_checkpoint": {"checkpoints": ("a.pt",)}}
"""What these commands cannot do without."""


@pytest.mark.parametrize(
    ("name", "given", "field", "value"),
    [
        ("compute", {}, "momentum", None),
        ("compute", {"momentum": None}, "momentum", "none"),
        ("compute", {"momentum": 0.1}, "momentum", "0.1"),
        ("compute", {"momentum": 1}, "momentum", "1"),
        ("compute", {"momentum": np.float64(1 / 3)}, "momentum", repr(1 / 3)),
        ("compute", {"channel": [0, 3]}, "channel", ["0", "3"]),
        ("compute", {"channel": 2}, "channel", ["2"]),
        ("compute", {"channel": range(2, 4)}, "channel", ["2", "3"]),
        ("compute", {"channel": np.array([1, 2])}, "channel", ["1", "2"]),
        ("compute", {"channel": "0,8-11"}, "channel", ["0,8-11"]),
        ("compute", {"training": np.bool_(False)}, "training", False),
        ("compute", {"dtype": "float64"}, "dtype", "float64"),
        ("compute", {"dtype": np.float32}, "dtype", "float32"),
        ("compute", {"dtype": np.dtype("float16")}, "dtype", "float16"),
        ("compute", {"dtype": torch.bfloat16}, "dtype", "bfloat16"),
        ("compute", {"inputs": (Path("a.npy"), "b.npy")}, "inputs", ["a.npy", "b.npy"]),
        ("compute", {"inputs": (["a.npy", "b.npy"],)}, "inputs", ["a.npy", "b.npy"]),
        ("compute", {"inputs": ([[1, 2.5], [3, 4]],)}, "values", "[[1, 2.5], [3, 4]]"),
        ("compute", {"values": [[1, 2.5], [3, 4]]}, "values", "[[1, 2.5], [3, 4]]"),
        ("compute", {"values": [[np.float32(1)]]}, "values", "[[1.0]]"),
        ("compute", {"fail_on": "note"}, "fail_on", "info"),
        ("compute", {"eps": 1}, "eps", 1.0),
        ("compute", {"select": "BN9"}, "select", ["BN9"]),
        ("diff", {"device": torch.device("cpu")}, "device", "cpu"),
        ("diff", {"memory_format": torch.channels_last}, "memory_format", "channels_last"),
        ("trace", {"at": (0, 0, 1, 1)}, "at", "0,0,1,1"),
        ("trace", {"input": None}, "input", None),
        ("simulate_ema", {"generate": (32, 64, 28)}, "generate", "32,64,28"),
        ("simulate_ema", {"convention": ["keras3", "jax"]}, "convention", ["keras3", "jax"]),
        ("compare_norms", {"normalized_shape": torch.Size([2, 3])}, "normalized_shape", "2,3"),
        ("compare_norms", {"normalized_shape": 3}, "normalized_shape", "3"),
        ("inspect_checkpoint", {"eps": {"a.*": 1e-3, "b": 1}}, "eps", ["a.*=0.001", "b=1"]),
        ("inspect_checkpoint", {"eps": 1e-3}, "eps", ["0.001"]),
        ("inspect_checkpoint", {"momentum": {"a.*": None}}, "momentum", ["a.*=none"]),
        ("inspect_checkpoint", {"momentum": None}, "momentum", ["none"]),
        ("diagnose", {"arg": {"n": 21, "name": "21", "x": None}}, "arg",
         ["n=21", "name='21'", "x=None"]),
        ("diagnose", {"arg": "n=21"}, "arg", ["n=21"]),
        ("diagnose", {"data": ["a.pt", Path("b.pt")]}, "data", ["a.pt", "b.pt"]),
        ("diagnose", {"input_key": [0, "mask"]}, "input_key", ["0", "mask"]),
        ("diagnose", {"try_": 2}, "most_tried", 2),
        ("recalibrate", {"counter": 7}, "counter", "7"),
        ("conventions", {"from_": "keras3"}, "source", "keras3"),
    ],
)  # fmt: skip
def test_a_value_is_what_would_be_typed(name, given, field, value):
    with objects_given():
        made = flags_of_call(name, INPUTS.get(name, {}) | given)[field]
    assert made == value
    assert type(made) is type(value) or isinstance(made, str)


def test_objects_get_names():
    x, net, loader = np.zeros((2, 3)), torch.nn.Linear(2, 2), [(torch.zeros(1), 2)]
    with objects_given():
        flags = flags_of_call("compute", {"inputs": (x, x), "state": net})
        assert [object_of(each) is x for each in flags["inputs"]] == [True, True]
        assert object_of(flags["state"]) is net
        flags = flags_of_call("diagnose", {"given": (net,), "data": loader, "metric": len})
        assert object_of(flags["given"][0]) is net
        assert [object_of(each) for each in flags["data"]] == [loader]
        assert object_of(flags["metric"]) is len
        two = flags_of_call("inspect_checkpoint", {"checkpoints": ([net, "b.pt"],)})["checkpoints"]
        assert object_of(two[0]) is net
        assert two[1] == "b.pt"


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("compute", {"eps": "big"}, "--eps: 'big' is not a number."),
        ("compute", {"eps": True}, "--eps: True is not a number."),
        ("compute", {"threads": 1.5}, "--threads: 1.5 is not a whole number."),
        ("compute", {"threads": 0}, "--threads: 0 is not from 1 to 1024."),
        ("diagnose", {"try_": -1}, "--try: -1 is not 0 or more."),
        ("compute", {"training": "no"}, "--training: it takes True or False, not 'no'."),
        ("compute", {"dtype": "f8"},
         "--dtype: it takes float16, bfloat16, float32 or float64, not 'f8'."),
        ("compute", {"fail_on": 3}, "--fail-on: it takes error, warning, info or never, not 3."),
        ("compute", {"dtype": np.int32},
         "--dtype: it takes float16, bfloat16, float32 or float64, not numpy.int32."),
        ("compute", {"dtype": torch.int32},
         "--dtype: it takes float16, bfloat16, float32 or float64, not torch.int32."),
        ("compute", {"dtype": np.dtype("int32")},
         "--dtype: it takes float16, bfloat16, float32 or float64, not dtype('int32')."),
        ("compute", {"dtype": int},
         "--dtype: it takes float16, bfloat16, float32 or float64, not int."),
        ("compute", {"values": np.ones((3, 2))},
         "--values: it takes lists of numbers; give an array or a tensor as the first argument."),
        ("compute", {"values": torch.ones(3, 2)},
         "--values: it takes lists of numbers; give an array or a tensor as the first argument."),
        ("compute", {"values": {1.0}}, "--values: it takes lists of numbers, not set."),
        ("compute", {"inputs": ("a\0.npy",)}, "INPUT: 'a\\x00.npy' has a null byte in it."),
        ("compute", {"save_stats": "\0.npz"}, "--save-stats: '\\x00.npz' has a null byte in it."),
        ("compute", {"inputs": (np.float32(3),)},
         "INPUT: it takes a path or an object with values, not the number 3.0."),
        ("compute", {"against": 3},
         "--against: it takes the name of a backend, a class or a function, not 3."),
        ("diagnose", {"data": []}, "--data: there is no batch in an empty list."),
        ("compute", {"save_stats": object()}, "--save-stats: it takes a path, not object."),
        ("compute", {"inputs": (None,)},
         "INPUT: it takes a path or an object with values, not None."),
        ("compute", {"inputs": (3,)}, "INPUT: it takes a path or an object with values, not 3."),
        ("trace", {"state": True}, "--state: it takes a path or an object with values, not True."),
        ("compute", {"channel": [1.5]}, "--channel: 1.5 is not a whole number."),
        ("diagnose", {"arg": {"norm": torch.nn.Linear}},
         "--arg norm: it takes Python literals, not type; build the model yourself, and give it."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_said(name, given, said):
    with objects_given(), pytest.raises(UsageError) as caught:
        flags_of_call(name, INPUTS.get(name, {}) | given)
    assert str(caught.value) == said


def test_lists_that_hold_themselves_or_other_objects_are_said():
    alone: list = []
    alone.append(alone)
    ring: list = [1.0]
    ring.append(ring)
    for value in (alone, ring, [1.0, object()], [[1.0], {2.0}]):
        with objects_given(), pytest.raises(UsageError) as caught:
            flags_of_call("compute", {"values": value})
        assert str(caught.value) == (
            "--values: a list in it holds itself, or something that is not a number."
        )
    with pytest.raises(BncliError, match="a list in it holds itself"):
        bncli.compute(ring)
    for value in (ring, alone):
        with pytest.raises(BncliError, match=r"^<list>: "):
            bncli.compute(np.zeros((4, 3)), weight=value)
    with pytest.raises(BncliError, match=r"^<list>: there is no tensor in it"):
        bncli.compute(alone)


def test_what_cannot_do_without_an_input_says_what_it_needs():
    for given in ({}, {"checkpoints": ()}, {"checkpoints": ([],)}):  # as of a pattern without files
        with objects_given(), pytest.raises(UsageError) as caught:
            flags_of_call("inspect_checkpoint", given)
        assert str(caught.value) == "inspect_checkpoint needs a checkpoint."
    with objects_given():
        assert flags_of_call("compute", {"inputs": ([],)})["inputs"] == []


@pytest.mark.parametrize(
    "line",
    [
        "compute x.npy --eps=big", "compute x.npy --threads=1.5", "compute x.npy --threads=0",
        "diagnose x.npz --try=-1", "compute x.npy --dtype=f8", "compute x.npy --fail-on=bad",
    ],
)  # fmt: skip
def test_the_sentence_is_that_of_the_command_line(run, line):
    command, path, flag = line.split()
    name, _, text = flag[2:].partition("=")
    value = float(text) if text == "1.5" else int(text) if text.lstrip("-").isdigit() else text
    with objects_given(), pytest.raises(UsageError) as caught:
        flags_of_call(
            command,
            INPUTS.get(command, {}) | {name.replace("-", "_") + "_" * (name == "try"): value},
        )
    typed = run(command, path, flag).stderr.replace("'1.5'", "1.5")
    assert typed == f"bncli: {caught.value}\n"
