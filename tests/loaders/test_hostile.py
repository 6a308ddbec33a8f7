"""Files made to do harm: nothing in them runs, and they cost little time and memory.

All are opened in one process of their own, under an audit hook that writes down whatever Python
itself reports as dangerous: imports, commands, code that is compiled, files opened for writing.
"""

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from functools import cache
from pathlib import Path

import pytest

from bncli.errors import BncliError
from bncli.loaders import open_file

from . import pickles as p
from .pickles import call, dictionary, integer, name, npy, pid, safetensors, tensor, text, tup

COMMAND = "touch CANARY"
SYSTEM = name("os", "system")
ARG = tup(text(COMMAND))
GLOBAL_4 = text("os") + text("system") + b"\x93"


def beside(value):
    """A checkpoint that has a good tensor `ok` beside the hostile value."""
    return p.torch_zip(dictionary(evil=value, ok=tensor()))


def with_tensor(**changes):
    return p.torch_zip(dictionary(evil=tensor(**changes), ok=tensor()))


class Exploit:
    def __reduce__(self):
        import os

        return os.system, (COMMAND,)


class SlowKey:
    """Pickled as a tuple that holds itself twice, 60 times over: hashing it never ends."""


def laughs(depth, core):
    """A list of ten times a list of ten times ..., with `core` at the bottom."""
    out = b"](" + core * 10 + b"e" + b"\x94"
    for level in range(depth):
        out += b"0](" + (b"h" + bytes([level])) * 10 + b"e\x94"
    return out


def doubled(depth):
    """A tuple of two of a tuple of two of ...: 2 to the depth leaves in a few bytes."""
    out = b"N\x85\x94"
    for level in range(depth):
        out += b"0" + (b"h" + bytes([level])) * 2 + b"\x86\x94"
    return out


def exploit_npy():
    import numpy as np

    out = io.BytesIO()
    np.save(out, np.array([Exploit()], dtype=object), allow_pickle=True)
    return out.getvalue()


def duplicate_members():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", p.whole(dictionary(ok=tensor())))
        archive.writestr("a/data.pkx", p.whole(call(SYSTEM, text(COMMAND))))
    return out.getvalue().replace(b"data.pkx", b"data.pkl")


def central_sizes(size, method=0, packed=None):
    """An archive whose directory lies about the one storage in it."""
    data = p.torch_zip(dictionary(ok=tensor()))
    at = data.rindex(b"a/data/0") - 46
    fields = list(struct.unpack_from("<4s6H3L5H2L", data, at))
    fields[4], fields[8], fields[9] = method, size if packed is None else packed, size
    return data[:at] + struct.pack("<4s6H3L5H2L", *fields) + data[at + 46 :]


def overlapping():
    """Two entries of the directory for one place in the file."""
    data = bytearray(p.torch_zip(dictionary(ok=tensor()), {"0": bytes(16), "1": bytes(16)}))
    first, second = (data.rindex(f"a/data/{n}".encode()) - 46 for n in "01")
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    return bytes(data)


def deflate_bomb():
    """100 MB of zeros as a compressed pickle: a hundred million opcodes of no kind."""
    return p.zipped({"a/data.pkl": bytes(100_000_000)}, zipfile.ZIP_DEFLATED)


def dense_bomb(opcode, count):
    """A compressed pickle of one opcode again and again."""
    raw = p.PROTO + opcode * count + p.STOP
    return p.zipped({"a/data.pkl": raw}, zipfile.ZIP_DEFLATED)


def npz_bomb():
    """An honest archive in all but this: 300 MB of zeros in 300 kB."""
    size = 300 << 20
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},)}}")
    zeros = bytes(1 << 20)
    packed = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)  # needs nothing before it
    packed += block * 300 + packer.flush()
    crc = zlib.crc32(start)
    for _ in range(300):
        crc = zlib.crc32(zeros, crc)
    data = bytearray(p.zipped({"a.npy": packed}))
    for at in (8, data.rindex(b"PK\x01\x02") + 10):
        data[at : at + 2] = struct.pack("<H", 8)
        sizes = struct.pack("<3L", crc, len(packed), len(start) + size)
        data[at + 6 : at + 18] = sizes
    return bytes(data)


def wide_fields_missing():
    """Sizes that are said to be in a 64-bit field that is not there."""
    data = bytearray(p.torch_zip(dictionary(ok=tensor())))
    at = data.rindex(b"a/data/0") - 46
    data[at + 20 : at + 28] = b"\xff" * 8
    return bytes(data)


def more_entries(count):
    data = bytearray(p.torch_zip(dictionary(ok=tensor())))
    data[-14:-10] = struct.pack("<2H", count, count)
    return bytes(data)


def state(setter):
    """An object that is given a state by a __setstate__ of the file's choosing."""
    return name("types", "SimpleNamespace") + b")\x81" + dictionary(__setstate__=setter) + b"b"


# What runs in Python's own unpickler, each by another way to call.
CALLS = {
    "reduce-global": SYSTEM + ARG + b"R",
    "reduce-stack-global": GLOBAL_4 + ARG + b"R",
    "inst": b"(" + text(COMMAND) + b"ios\nsystem\n",
    "obj": b"(" + SYSTEM + text(COMMAND) + b"o",
    "newobj": name("subprocess", "Popen") + ARG + b"\x81",
    "newobj-ex": name("subprocess", "Popen") + ARG + dictionary(shell=p.TRUE) + b"\x92",
    "build-setstate": state(SYSTEM) + text(COMMAND) + b"b",
    "build-slots": name("os", "_Environ") + b")\x81" + tup(p.NONE, dictionary(a=SYSTEM)) + b"b",
    "eval": call(name("builtins", "eval"), text("__import__('os').system('touch CANARY')")),
    "exec": call(name("builtins", "exec"), text("open('CANARY', 'w')")),
    "python-2": call(name("__builtin__", "apply"), SYSTEM, ARG),
    "getattr": call(
        call(name("builtins", "getattr"), call(name("importlib", "import_module"), text("os")),
             text("system")),
        text(COMMAND),
    ),
    "partial": call(call(name("functools", "partial"), SYSTEM, text(COMMAND))),
    "map": call(name("builtins", "list"), call(name("builtins", "map"), SYSTEM, ARG)),
    "nested-loads": call(name("pickle", "loads"), p.blob(pickle.dumps(Exploit()))),
    "nested-torch": call(
        name("torch.storage", "_load_from_bytes"), p.blob(pickle.dumps(Exploit()))
    ),
    "copyreg": call(name("copyreg", "_reconstructor"), SYSTEM, name("builtins", "object"), p.NONE),
    "open-for-writing": call(name("builtins", "open"), text("CANARY"), text("w")),
    "rmtree": call(name("shutil", "rmtree"), text(".")),
    "import": name("antigravity", "fly") + b")R",
    "run-module": call(name("runpy", "run_path"), text("CANARY.py")),
    "extension-1": b"\x82\x01" + ARG + b"R",
    "extension-2": b"\x83\x01\x02" + ARG + b"R",
    "extension-4": b"\x84\x01\x02\x03\x04" + ARG + b"R",
    "setitem": SYSTEM + b")R" + text("a") + text("b") + b"s",
    "additems": b"\x8f(" + SYSTEM + ARG + b"R" + b"\x90",
    "hooks": call(
        name("torch._utils", "_rebuild_parameter"), tensor(), p.FALSE,
        call(SYSTEM, text(COMMAND)),
    ),
    "subclass-function": call(
        name("torch._tensor", "_rebuild_from_type_v2"), SYSTEM, SYSTEM, ARG, p.NONE
    ),
    "dispatch-attribute": call(name("torch", "hub.load"), text("x"), text("y")),
    "unimportable-names": name("..", "\\0") + b")R" + name("", "") + b")R\x86",
}  # fmt: skip

# References to storages that no PyTorch writes.
REFERENCES = {
    "number": integer(7),
    "none": p.NONE,
    "text": text("storage"),
    "empty": tup(),
    "short": tup(text("storage"), name("torch", "FloatStorage")),
    "long": pid("0", 4, "FloatStorage", "cpu", p.NONE, p.NONE, p.NONE),
    "other-kind": tup(text("module"), name("os", "system"), text("x"), text("y"), integer(1)),
    "class-is-text": tup(text("storage"), text("FloatStorage"), text("0"), text("cpu"), integer(4)),
    "class-unknown": pid("0", 4, "SystemStorage"),
    "key-is-list": tup(
        text("storage"), name("torch", "FloatStorage"), b"]", text("cpu"), integer(4)
    ),
    "count-negative": pid("0", -4),
    "count-huge": pid("0", 1 << 200),
    "count-over-file": pid("0", 1 << 40),
    "key-missing": pid("no such"),
    "key-up": pid("../../../../etc/passwd"),
    "key-absolute": pid("/etc/passwd"),
    "key-nul": pid("0\0x"),
    "view-outside": pid("0", 4, "FloatStorage", "cpu", tup(text("v"), integer(2), integer(4))),
    "view-ill-formed": pid("0", 4, "FloatStorage", "cpu", tup(SYSTEM)),
}

VIEWS = {
    "stride-outside": {"size": (4,), "stride": (2,)},
    "stride-overflow": {"size": (3, 3), "stride": (1 << 62, 1 << 61)},
    "stride-negative": {"stride": (-1,)},
    "size-negative": {"size": (-4,)},
    "size-overflow": {"size": (1 << 32, 1 << 32), "stride": (1 << 32, 1)},
    "offset-outside": {"offset": 4},
    "offset-negative": {"offset": -1},
    "offset-overflow": {"offset": 1 << 61},
    "axes-do-not-match": {"size": (2, 2), "stride": (1,)},
    "too-many-axes": {"size": (1,) * 500, "stride": (1,) * 500},
}

PARTS = ("weight", "bias", "running_mean", "running_var")


def packed(value, storage=bytes(16)):
    """A PyTorch archive whose members are compressed."""
    return p.zipped({"a/data.pkl": p.whole(value), "a/data/0": storage}, zipfile.ZIP_DEFLATED)


def layers(count, one):
    """A state_dict of so many BatchNorm layers whose tensors are all the same one."""
    names = (f"l{n}.{part}" for n in range(count) for part in PARTS)
    return one + b"\x940}(" + b"".join(text(key) + b"h\0" for key in names) + b"u"


def shared_hidden_names(scale):
    """Thousands of modules with one set of a million things for the names of hidden buffers."""
    state = (
        b"}(" + text("_parameters") + dictionary(w=tensor()) + text("_buffers") + b"}"
        + text("_modules") + b"}" + text("_non_persistent_buffers_set")
        + b"\x8f(" + b"N" * (1_000_000 // scale) + b"\x90u"
    )  # fmt: skip
    modules = b"h\x01)\x81h\0b" * (3_000 // scale)
    return p.torch_zip(state + b"\x940" + name("a", "b") + b"\x940(" + modules + b"t")


def shared_hidden_buffers(scale):
    """Thousands of modules with the same buffers, all of them hidden."""
    count = 100_000 // scale
    keys = b"".join(text(str(n)) for n in range(count))
    buffers = b"}(" + b"".join(text(str(n)) + b"N" for n in range(count)) + b"u"
    state = (
        b"}(" + text("_parameters") + dictionary(w=tensor()) + text("_buffers") + buffers
        + text("_modules") + b"}" + text("_non_persistent_buffers_set")
        + b"\x8f(" + keys + b"\x90u"
    )  # fmt: skip
    modules = b"h\x01)\x81h\0b" * (10_000 // scale)
    return p.torch_zip(state + b"\x940" + name("a", "b") + b"\x940(" + modules + b"t")


def shared_list_of_pairs(scale):
    """Thousands of ordered dictionaries that are made from one list of a million."""
    start = (
        b"("
        + b"N" * (1_000_000 // scale)
        + b"l\x940"
        + name("collections", "OrderedDict")
        + b"\x940"
    )
    one = b"h\x01h\0\x85R" + text("a") + b"h\x02s"
    return p.torch_zip(start + tensor() + b"\x940(" + one * (3_000 // scale) + b"t")


def copied_pairs():
    """Thousands of dictionaries of a class, each copied from one of a hundred thousand items."""
    start = b"}(" + b"NN" * 100_000 + b"u\x940" + name("copyreg", "_reconstructor") + b"\x940"
    one = b"h\x01" + name("a", "b") + p.NONE + b"h\0\x87R"
    return p.torch_zip(start + b"(" + tensor() + one * 3_000 + b"t")


def names_in_the_way(count):
    """Tensors without a name, and others that have the names which they would be given."""
    taken = b"".join(text(f"? ({count + n})") + b"h\0" for n in range(2 * count))
    return p.torch_zip(tensor() + b"\x940}(" + taken + b"Nh\0" * count + b"u")


def in_turns(count, numel):
    """Layers whose tensors are at the ends of two large storages, by turns."""
    ends = [
        tensor((2,), (1,), offset, pid(key, numel))
        for offset in (0, numel - 2)
        for key in ("0", "1")
    ]
    named = zip((f"l{n}.{part}" for n in range(count) for part in PARTS), ends * count, strict=True)
    return dictionary(**dict(named))


def dense_tensors(scale):
    """One call again and again, each of which makes a tensor."""
    return p.torch_zip(
        name("torch._utils", "_rebuild_tensor_v2") + b"\x940"
        + tup(pid() + b"Q", integer(0), tup(integer(4)), tup(integer(1)), p.FALSE, p.NONE)
        + b"\x940(" + b"h\0h\1R" * (200_000 // scale) + b"t"
    )  # fmt: skip


def inflated(scale):
    """Thirty layers in a quarter of a gigabyte of zeros."""
    numel = 62_500_000 // scale
    return packed(layers(30, tensor((2,), (1,), 0, pid("0", numel))), bytes(4 * numel))


def inflated_in_turns(scale):
    """The same in two storages, of which each layer needs both."""
    numel = 62_500_000 // scale
    members = {"a/data.pkl": p.whole(in_turns(30, numel))}
    members |= {f"a/data/{key}": bytes(4 * numel) for key in "01"}
    return p.zipped(members, zipfile.ZIP_DEFLATED)


def pairs(scale):
    """A dictionary of nothing but None."""
    return p.torch_zip(b"}(" + b"N" * (9_900_000 // scale) + b"u")


def pairs_below_the_limit(scale):
    return p.torch_zip(dictionary(ok=tensor()) + b"(" + b"N" * (2_800_000 // scale) + b"u")


def pairs_packed_less(scale):
    return packed(b"}(" + b"N" * (4_000_000 // scale) + b"u")


def names_by_scale(scale):
    return names_in_the_way(30_000 // scale)


HEAVY = {
    "cost-pairs": pairs,
    "cost-pairs-below-the-limit": pairs_below_the_limit,
    "cost-pairs-packed-less": pairs_packed_less,
    "cost-hidden-names": shared_hidden_names,
    "cost-hidden-buffers": shared_hidden_buffers,
    "cost-listed-pairs": shared_list_of_pairs,
    "cost-names": names_by_scale,
    "cost-inflated": inflated,
    "cost-inflated-in-turns": inflated_in_turns,
    "dense-tensors": dense_tensors,  # the last, and the only one without a command's test
}
"""Files that take a second or more, by what makes them smaller by a factor.

The default run opens an eighth of each, the whole are `exhaustive`.
"""
FEWER = 8

COSTS = {
    "cost-pairs-packed": lambda: packed(b"}(" + b"N" * 9_900_000 + b"u"),
    "cost-tuple-packed": lambda: packed(b"(" + b")" * 9_900_000 + b"t"),
    "cost-texts-wide": lambda: p.torch_zip(b"(" + text("\U0001f600" + "a" * 60_000) * 1_000 + b"t"),
    "cost-copied-pairs": copied_pairs,
    "cost-expanded": lambda: p.torch_zip(layers(300, tensor((4_000_000,), (0,)))),
    "cost-whole-views": lambda: p.torch_zip(
        layers(2_000, tensor((1_000_000,), (1,), 0, pid("0", 1_000_000))), {"0": bytes(4_000_000)}
    ),
}
"""With those of `HEAVY`, what took minutes, or most of the memory, before work was counted.

They are made where they are written: every run reads this module, and few run these tests.
"""

REPEATED = tensor((1 << 45,), (0,))
F32 = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}

FILES = {
    **{f"call-{k}": beside(v) for k, v in CALLS.items()},
    **{f"legacy-{k}": p.torch_legacy(dictionary(evil=v, ok=tensor())) for k, v in CALLS.items()},
    **{f"plain-{k}": p.whole(v) for k, v in CALLS.items()},
    **{f"reference-{k}": with_tensor(reference=v) for k, v in REFERENCES.items()},
    **{
        f"legacy-reference-{k}": p.torch_legacy(dictionary(evil=tensor(reference=v)))
        for k, v in REFERENCES.items()
    },
    **{f"view-{k}": with_tensor(**v) for k, v in VIEWS.items()},
    "protocol-0-persistent": p.torch_zip(b"Pstorage\n"),
    "call-without-tuple": beside(SYSTEM + text("x") + b"R"),
    "rebuild-without-arguments": beside(call(name("torch._utils", "_rebuild_tensor_v2"))),
    "parameter-of-itself": p.torch_zip(
        name("torch._utils", "_rebuild_parameter") + b"](\x94" + b"h\0eh\0\x85R"
    ),
    "wrapped-too-often": beside(
        b"".join([name("torch._utils", "_rebuild_parameter")] * 40) + tensor() + b"\x85R" * 40
    ),
    "repeats-forever": p.torch_zip(dictionary(evil=REPEATED, ok=tensor())),
    "bomb-laughs": p.torch_zip(laughs(60, b"N")),
    "bomb-laughs-tensor": p.torch_zip(laughs(60, tensor())),
    "bomb-laughs-dict": p.torch_zip(
        b"}" + text("a") + tensor() + b"s\x94"
        + b"".join(
            b"0}(" + b"".join(text(str(k)) + b"h" + bytes([n]) for k in range(10)) + b"u\x94"
            for n in range(60)
        )
    ),
    "bomb-hash": p.torch_zip(b"}" + doubled(80) + b"Ns"),
    "bomb-hash-set": p.torch_zip(b"\x8f(" + doubled(80) + b"\x90"),
    "bomb-circle": p.torch_zip(b"]\x94(" + tensor() + b"h\0e"),
    "bomb-circle-dict": p.torch_zip(b"}\x94(" + text("a") + tensor() + text("b") + b"h\0u"),
    "bomb-long-names": p.torch_zip(
        b"}" + text("k" * 60_000) + b"\x94"
        + tensor() + b"s" + b"".join(b"\x94}h\0h" + bytes([n]) + b"s" for n in range(1, 200))
    ),
    "bomb-many-names": p.torch_zip(
        b"}" + text("k" * 4_000) + tensor() + b"s\x940(" + b"h\0" * 200_000 + b"t"
    ),
    "bomb-wide-shared": p.torch_zip(
        b"(" + tensor() + b"N" * 20_000 + b"t\x940(" + b"h\0" * 20_000 + b"t"
    ),
    "bomb-shared-state": p.torch_zip(
        dictionary(**{f"k{n}": p.NONE for n in range(5_000)}) + b"\x940("
        + (name("a", "b") + b")\x81h\0b") * 10_000 + b"t"
    ),
    "deep-tuples": p.torch_zip(b"N" + b"\x85" * 600_000),
    "deep-lists": p.torch_zip(b"]" * 200_000 + b"a" * 199_999),
    "deep-calls": p.torch_zip(b")" + (name("a", "b") + b"2R\x85") * 10),
    "deep-marks": p.torch_zip(b"(" * 1_000_000),
    "deep-tensor": p.torch_zip(tensor() + b"\x85" * 100_000),
    "deep-states": p.torch_zip(
        (name("a", "b") + b")\x81") * 50_000 + tensor() + b"b" * 50_000
    ),
    "dense-dicts": p.torch_zip(b"}" * 1_500_000),
    "dense-sets": p.torch_zip(b"\x8f" * 1_500_000),
    "dense-memo": p.torch_zip(b"N" + b"\x94" * 1_500_000),
    "dense-none": p.torch_zip(b"N" * 1_500_000),
    "dense-packed": lambda: dense_bomb(b"}", 60_000_000),
    "dense-packed-memo": lambda: dense_bomb(b"N\x94", 30_000_000),
    "memo-far": p.torch_zip(b"Nr\xff\xff\xff\xff"),
    "memo-far-text": p.torch_zip(b"Np99999999999999999999\n"),
    "memo-absent": p.torch_zip(b"j\xff\xff\xff\x7f"),
    "length-bytes-8": p.torch_zip(b"\x8e" + b"\xff" * 7 + b"\x7f" + b"x"),
    "length-text-8": p.torch_zip(b"\x8d" + b"\xff" * 8 + b"x"),
    "length-bytearray-8": p.torch_zip(b"\x96" + b"\xff" * 8 + b"x"),
    "length-long-4": p.torch_zip(b"\x8b\xff\xff\xff\x7f" + b"x" * 10),
    "length-frame": p.torch_zip(b"\x95" + b"\xff" * 8 + b"N"),
    "length-string": p.torch_zip(b"T\xff\xff\xff\xffx"),
    "digits-int": p.torch_zip(b"I" + b"9" * 4_000 + b"\n"),
    "digits-long": p.torch_zip(b"L" + b"9" * 1_000_000 + b"L\n"),
    "digits-binary": p.torch_zip(b"\x8b" + struct.pack("<I", 1_000_000) + b"\x77" * 1_000_000),
    "no-buffers": p.torch_zip(b"\x97\x98"),
    "bad-utf8": p.torch_zip(b"X\x04\0\0\0\xff\xfe\xff\xfe"),
    "empty-pickle": p.zipped({"a/data.pkl": b""}),
    "only-stop": p.zipped({"a/data.pkl": b"."}),
    "two-pickles": p.zipped({"a/data.pkl": p.whole(b"N"), "b/data.pkl": p.whole(b"N")}),
    "names-escape": p.torch_zip(
        dictionary(**{"\x1b]0;evil\x07\x1b[2J\n\r": tensor((4,), (9,))})
    ),
    "byteorder-strange": p.torch_zip(dictionary(ok=tensor()), **{"a/byteorder": b"middle"}),
    "zip-duplicate": duplicate_members(),
    "zip-size-over-file": central_sizes(1 << 30),
    "zip-size-two": central_sizes(1 << 10, packed=16),
    "zip-size-deflate": central_sizes(0xFFFFFF00, method=8, packed=16),
    "zip-method": central_sizes(16, method=14),
    "zip-overlap": overlapping(),
    "zip-wide-missing": wide_fields_missing(),
    "zip-entries-more": more_entries(60_000),
    "zip-entries-fewer": more_entries(1),
    "zip-bomb-pickle": deflate_bomb,
    "zip-bomb-npz": npz_bomb,
    "zip-paths": p.zipped({"../../../../tmp/CANARY.npy": npy("x"), "/etc/CANARY.npy": npy("x")}),
    "zip-only-end": b"PK\x05\x06" + b"\xff" * 18,
    "zip-nested": p.zipped({"a/data.pkl": p.torch_zip(call(SYSTEM, text(COMMAND)))}),
    "legacy-count-huge": p.torch_legacy(tensor(), {"0": ((1 << 62), b"")}),
    "legacy-count-negative": p.torch_legacy(tensor(), {"0": (-1, bytes(16))}),
    "legacy-count-over": p.torch_legacy(tensor(), {"0": (1 << 40, bytes(16))}),
    "legacy-keys-missing": p.torch_legacy(tensor(), {}),
    "legacy-keys-unknown": p.torch_legacy(tensor(), {"0": (4, bytes(16)), "x": (1, bytes(4))}),
    "safetensors-length": safetensors({}, length=(1 << 64) - 1),
    "safetensors-length-over": safetensors({"a": F32}, length=90_000_000),
    "safetensors-deep": safetensors(b'{"a":' + b"[" * 1_000_000),
    "safetensors-deep-object": safetensors(b'{"a":' * 1_000_000),
    "safetensors-digits": safetensors(b'{"a":' + b"9" * 1_000_000 + b"}"),
    "safetensors-twice": safetensors(
        b'{"a":' + json.dumps(F32).encode() + b',"a":' + json.dumps(F32).encode() + b"}", bytes(16)
    ),
    "safetensors-hole": safetensors({"a": F32 | {"data_offsets": [8, 24]}}, bytes(24)),
    "safetensors-overlap": safetensors({"a": F32, "b": F32}, bytes(16)),
    "safetensors-behind": safetensors({"a": F32}, bytes(20)),
    "safetensors-outside": safetensors({"a": F32}, bytes(12)),
    "safetensors-shape-overflow": safetensors(
        {"a": F32 | {"shape": [1 << 33, 1 << 33, 0, 1 << 60]}}, bytes(16)
    ),
    "safetensors-negative": safetensors({"a": F32 | {"shape": [-4]}}, bytes(16)),
    "safetensors-types": safetensors({"a": {"dtype": [], "shape": {}, "data_offsets": True}}),
    "npy-code": npy("{'descr': __import__('os').system('touch CANARY'), 'shape': (), }"),
    "npy-object": exploit_npy(),
    "npy-deep": npy("(" * 60_000, version=2),
    "npy-header-length": b"\x93NUMPY\x02\0\xff\xff\xff\xff{",
    "npy-shape-huge": npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (4000000000, 4000000000), }", bytes(64)
    ),
    "npy-shape-huge-empty": npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 9000000000000000000), }"
    ),
    "npy-shape-axes": npy(
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 5_000 + "), }", bytes(8), 2
    ),
    "index-up": json.dumps({"weight_map": {"a": "../../../../etc/passwd"}}).encode(),
    "index-absolute": json.dumps({"weight_map": {"a": "/etc/passwd"}}).encode(),
    "index-itself": json.dumps({"weight_map": {"a": "index-itself"}}).encode(),
    "index-deep": b'{"weight_map":' + b"[" * 1_000_000,
    "index-list": b'{"weight_map": ["a"]}',
    **COSTS,
}  # fmt: skip

OPENER = """
import json, os, resource, sys, time
sys.path.insert(0, sys.argv[2])
import memory
from pathlib import Path
import numpy, zlib
from bncli.errors import BncliError
import bncli.loaders, bncli.state_dict, bncli.loaders.names, difflib
import importlib, pkgutil
for module in pkgutil.iter_modules(bncli.loaders.__path__):  # imported before anyone watches
    importlib.import_module(f"bncli.loaders.{module.name}")
import bncli.cli, contextlib, io
events, watching = [], False
HARMLESS = {"open", "os.listdir", "os.scandir", "mmap.__new__", "object.__getattr__", "gc"}
def hook(event, args):
    if not watching:
        return
    if event == "open" and (args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        events.append(f"open for writing {args[0]}")
    elif event == "import" and args[0].partition(".")[0] in {"json", "_json", "encodings"}:
        pass
    elif event.partition(".")[0] in {"compile", "exec", "import", "os", "subprocess", "socket",
                                     "ctypes", "shutil", "pickle", "code", "marshal"}:
        if event not in HARMLESS and not (inspect and event in {"compile", "exec"}):
            events.append(f"{event} {args!r}"[:200])
sys.addaudithook(hook)
json.loads('{"warm": ["up"]}', object_pairs_hook=dict)
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
def inspected(path):  # typer compiles the annotations of the options
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = bncli.cli.main(["inspect-checkpoint", str(path)])
    return f"exit {int(code)} {said.getvalue()[:300]!r}"
inspect = sys.argv[3:] == ["inspect"]
if inspect:
    import rich.table  # of a report whose table is wider than the terminal
    inspected(Path(sys.argv[1], "call-eval"))
for path in sorted(Path(sys.argv[1]).glob("cost-*" if inspect else "*")):
    before = memory.mark()
    begun = time.process_time()
    watching = True
    outcome, tensors = "", []
    try:
        if inspect:
            raise BncliError(inspected(path))
        file = bncli.loaders.open_file(path)
        bncli.state_dict.batch_norm_layers(file)
        for ref in file.tensors.values():
            try:
                ref.read()
                tensors.append(ref.name[:100])
            except BncliError as error:
                outcome = "unreadable"
        outcome = outcome or "value"
    except BncliError as error:
        outcome = f"{type(error).__name__} {error}"
    except BaseException as error:
        outcome = f"BUG {error!r}"
    watching = False
    kilobytes = memory.grown(before)
    file = ref = None
    print(json.dumps({
        "file": path.name, "outcome": outcome, "tensors": tensors[:5], "events": events,
        "seconds": time.process_time() - begun,
        "kilobytes": kilobytes,
    }))
    events.clear()
"""


def opened(directory, here, *mode):
    """What came of every file in the directory, by name, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", OPENER, str(directory), str(Path(__file__).parent), *mode],
        capture_output=True, text=True, cwd=here, timeout=1800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return {result["file"]: result for result in found}


WHOLE = [pytest.param(file_name, marks=pytest.mark.exhaustive) for file_name in HEAVY]
LIGHT = [*FILES, *(f"{file_name}-fewer" for file_name in HEAVY)]
COSTLY = [file_name for file_name in LIGHT if file_name.startswith("cost-")]


def written(directory, files):
    """A new directory of files, each under its name; those that are large are made here."""
    for file_name, data in files.items():
        (directory / file_name).write_bytes(data() if callable(data) else data)
    return directory


@pytest.fixture(scope="module")
def light(tmp_path_factory):
    """Every file that is light, and an eighth of each that is not."""
    fewer = {f"{file_name}-fewer": make(FEWER) for file_name, make in HEAVY.items()}
    return written(tmp_path_factory.mktemp("hostile"), FILES | fewer)


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """The others, whole, and the one by which the opener warms up."""
    files = {"call-eval": FILES["call-eval"]}
    files |= {file_name: make(1) for file_name, make in HEAVY.items()}
    return written(tmp_path_factory.mktemp("heavy"), files)


@pytest.fixture(scope="module")
def come_of(request, tmp_path_factory):
    """What came of a file, by name and by the mode of the opener; it left no file behind."""

    @cache
    def results(files, *mode):
        here = tmp_path_factory.mktemp("here")
        found = opened(request.getfixturevalue(files), here, *mode)
        assert not list(here.iterdir())
        return found

    return lambda name, *mode: results("heavy" if name in HEAVY else "light", *mode)[name]


@pytest.mark.parametrize("file_name", [*LIGHT, *WHOLE])
def test_nothing_runs_and_little_is_spent(file_name, come_of):
    result = come_of(file_name)
    assert not result["events"], result
    assert not result["outcome"].startswith("BUG"), result
    assert "\n" not in result["outcome"]
    assert result["outcome"].isprintable(), result
    assert result["seconds"] < (20 if file_name in HEAVY else 5)
    assert result["kilobytes"] < 300_000, result
    assert not list(Path("/tmp").glob("CANARY*"))


@pytest.mark.parametrize("file_name", [*COSTLY, *WHOLE[:-1]])
def test_a_whole_command_spends_little(file_name, come_of):
    result = come_of(file_name, "inspect")
    assert result["outcome"].startswith(
        ("BncliError exit 0", "BncliError exit 1", "BncliError exit 2", "BncliError exit 3")
    ), result
    assert not result["events"], result
    assert result["seconds"] < 8, result
    assert result["kilobytes"] < 300_000, result


@pytest.mark.parametrize(
    "file_name",
    ["cost-pairs-packed", "cost-tuple-packed", "cost-pairs-packed-less-fewer"]
    + [each for each in WHOLE if each.values[0].startswith("cost-pairs")],
)
def test_what_is_only_large_is_not_called_harmful(file_name, come_of):
    outcome = come_of(file_name)["outcome"]
    if "below" in file_name or "fewer" in file_name:
        assert outcome == "value"
    else:
        assert outcome.startswith("UnsupportedFileError")
        assert "harm" not in outcome


def test_what_ends_early_is_damaged_and_not_large(come_of):
    assert come_of("dense-dicts")["outcome"].startswith("CorruptFileError")


@pytest.mark.parametrize(
    "file_name", ["cost-expanded", pytest.param("cost-inflated", marks=pytest.mark.exhaustive)]
)
def test_tensors_that_repeat_too_much_are_unreadable(file_name, come_of):
    assert come_of(file_name)["outcome"] == "unreadable"
    assert come_of(file_name)["tensors"][:2] == ["l0.weight", "l0.bias"]
    if file_name == "cost-expanded":
        assert len(come_of(file_name)["tensors"]) == 2


@pytest.mark.parametrize("way", CALLS)
def test_a_call_is_a_record_and_the_good_tensor_beside_it_is_read(way, come_of):
    assert "ok" in come_of(f"call-{way}")["tensors"]
    assert "ok" in come_of(f"legacy-{way}")["tensors"]


@pytest.mark.parametrize(
    "file_name", [f for f in FILES if f.startswith(("reference", "view", "legacy-reference"))]
)
def test_a_place_that_cannot_be_is_refused(file_name, come_of):
    assert come_of(file_name)["outcome"].startswith("CorruptFileError")


@pytest.mark.parametrize(
    "file_name",
    [f for f in FILES if f.startswith(("zip-", "safetensors-", "npy-", "index-", "length-"))],
)
def test_a_lie_is_refused(file_name, come_of):
    assert come_of(file_name)["outcome"].split(" ")[0] in {
        "CorruptFileError", "UnsupportedFileError",
    }  # fmt: skip


@pytest.mark.parametrize(
    "file_name",
    [f for f in FILES if f.startswith(("bomb-laughs-", "bomb-many", "bomb-wide", "bomb-long"))]
    + [
        "deep-tensor",
        "deep-states",
        *(each for each in WHOLE if each.values[0] == "dense-tensors"),
    ],
)
def test_a_structure_that_unfolds_without_end_is_refused(file_name, come_of):
    assert "its objects refer to each other more often or more" in come_of(file_name)["outcome"]


@pytest.mark.parametrize("file_name", ["bomb-circle", "bomb-circle-dict"])
def test_a_circle_is_no_harm(file_name, come_of):
    assert come_of(file_name)["outcome"] == "value"
    assert len(come_of(file_name)["tensors"]) == 1


def test_there_are_many_files():
    assert len(FILES) >= 150


def test_an_exploit_would_have_been_seen(tmp_path):
    """The same file in Python's own unpickler runs, and the audit hook sees it."""
    path = tmp_path / "data.pkl"
    path.write_bytes(p.whole(CALLS["reduce-global"]))
    code = OPENER.replace(
        "bncli.loaders.open_file(path)", "__import__('pickle').loads(path.read_bytes())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)],
        capture_output=True, text=True, cwd=tmp_path, timeout=1800, check=False,
    )  # fmt: skip
    assert "os.system" in done.stdout
    assert (tmp_path / "CANARY").exists()


def test_a_message_shows_no_control_character(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(FILES["names-escape"])
    with pytest.raises(BncliError) as caught:
        open_file(path)
    assert str(caught.value).isprintable()
