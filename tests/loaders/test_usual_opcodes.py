"""The loop over usual opcodes does what the machine does step by step, mistakes included."""

from __future__ import annotations

import io
import pickle
import random
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from bncli.errors import FileError
from bncli.loaders import pickle_machine, unpickler, usual_opcodes
from bncli.loaders.pickle_machine import Machine
from bncli.loaders.pickle_records import Blob, Dict, Global, Persistent, Record

PATH = Path("net.pt")
LIMITS = {"MOST_OBJECTS": 20, "MOST_REMEMBERED": 10, "MOST_WORDS": 300, "MOST_MARKS": 2}


def plain(value):
    """A record as values that can be compared."""
    if isinstance(value, Record):
        parts = (value.cls, value.args, value.states, value.pairs, value.elements)
        return ("record", *map(plain, parts))
    if isinstance(value, Global):
        return ("global", value.module, value.name)
    if isinstance(value, Persistent):
        return ("persistent", plain(value.pid))
    if isinstance(value, Blob):
        return ("blob", value.start, value.stop)
    if isinstance(value, Dict):
        return ("dict", *map(plain, value.pairs))
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *map(plain, value))
    return (type(value).__name__, repr(value))


def outcome(data, monkeypatch, *, quick, window=None):
    """What reading gives or says, and what the machine counted."""
    machines = []

    class Kept(Machine):
        def __init__(self, *given):
            super().__init__(*given)
            machines.append(self)

    class View:
        size = len(data)

        def read(self, offset, count):
            return data[offset : offset + count]

    with monkeypatch.context() as patched:
        patched.setattr(unpickler, "Machine", Kept)
        if window:
            patched.setattr(pickle_machine, "WINDOW", window)
        if not quick:
            patched.setattr(unpickler, "follow_usual", lambda machine, most: 0)
        try:
            value = plain(unpickler.load(PATH, View() if window else data).value)
        except FileError as error:
            value = str(error)
    (machine,) = machines
    kept = {key: plain(each) for key, each in machine.memo.items()}
    return value, machine.at, machine.objects, machine.words, kept, len(machine.persistents)


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        return ("storage", "FloatStorage", str(id(value) % 7), "cpu", 4) if value is ... else None


def pickled(value, protocol):
    stream = io.BytesIO()
    Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def state(layers=3):
    net = torch.nn.Sequential(*(torch.nn.BatchNorm1d(4) for _ in range(layers)))
    stream = io.BytesIO()
    torch.save(net.state_dict(), stream)
    from zipfile import ZipFile

    return ZipFile(stream).read("archive/data.pkl")


VALUES = [
    {"a": (1, 2, 3), "b": [300, -1, 70_000, 1 << 40, 1.5], "c": None, "d": (), "é": True},
    OrderedDict(x=..., y=(..., False, ("q",)), z="\ud800"),
    [{"k": [(i,) for i in range(300)]}, "t" * 70_000],
]
PICKLES = [pickled(value, protocol) for value in VALUES for protocol in (2, 3, 4, 5)] + [state()]


@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize("data", PICKLES, ids=range(len(PICKLES)))
def test_both_ways_are_the_same(data, window, monkeypatch):
    slow = outcome(data, monkeypatch, quick=False, window=window)
    assert outcome(data, monkeypatch, quick=True, window=window) == slow


def test_a_state_dict_is_nearly_all_usual():
    data = state(100)
    machine = Machine(PATH, data, 0, len(data))
    usual = rest = 0
    while machine.at < len(data) - 1:
        usual += usual_opcodes.follow_usual(machine, 10**6)
        opcode = data[machine.at]
        if opcode == 0x2E:
            break
        machine.at += 1
        unpickler._ACTIONS[opcode](machine)
        rest += 1
    assert usual > 50 * rest


@pytest.mark.parametrize("seed", range(40))
def test_damage_is_told_alike(seed, monkeypatch):
    draw = random.Random(seed)
    data = bytearray(draw.choice(PICKLES))
    usual = b"qrhjKMN\x88\x89)X(Rt\x85\x86\x87Q"
    for _ in range(draw.choice([1, 3])):
        data[draw.randrange(min(len(data), 600))] = draw.choice([*usual, draw.randrange(256)])
    if draw.random() < 0.3:
        del data[draw.randrange(len(data)) :]
    slow = outcome(bytes(data), monkeypatch, quick=False)
    assert outcome(bytes(data), monkeypatch, quick=True) == slow


@pytest.mark.parametrize("limit", LIMITS)
def test_limits_hold_at_the_same_place(limit, monkeypatch):
    for module in (pickle_machine, usual_opcodes):
        monkeypatch.setattr(module, limit, LIMITS[limit])
    for data in PICKLES[-1:] + PICKLES[:1]:
        slow = outcome(data, monkeypatch, quick=False)
        fast = outcome(data, monkeypatch, quick=True)
        assert fast == slow
