import json
import random

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch

from bncli.errors import CorruptFileError, FileError, TensorError
from bncli.loaders import open_file

from . import memory
from .files import assert_same, newer_values, values
from .pickles import safetensors as by_hand

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def opened(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    return open_file(path)


def dense():
    tensors = {k: v.contiguous() for k, v in (values() | newer_values()).items()}
    del tensors["complex128"]
    return tensors


def test_every_dtype_as_the_library_reads_it(tmp_path):
    path = tmp_path / "x"
    safetensors.torch.save_file(dense(), path, metadata={"format": "pt"})
    file = open_file(path)
    assert file.container == "safetensors"
    with safetensors.safe_open(path, "pt") as theirs:
        expected = {name: theirs.get_tensor(name) for name in theirs.keys()}  # noqa: SIM118 (no iterator)
    assert_same(file.tensors, expected)
    assert set(file.tensors) == set(expected)


def test_a_file_of_the_numpy_side(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(3, np.int16)}
    file = opened(tmp_path, safetensors.numpy.save(arrays))
    assert_same(file.tensors, arrays)


def test_no_tensors_and_empty_tensors(tmp_path):
    assert opened(tmp_path, safetensors.torch.save({})).tensors == {}
    file = opened(tmp_path, safetensors.torch.save({"a": torch.zeros(0, 3), "b": torch.zeros(0)}))
    assert file.tensors["a"].read().shape == (0, 3)


def test_dtypes_of_less_than_a_byte_are_listed(tmp_path):
    header = {"a": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}, "b": F32}
    header["b"] = F32 | {"data_offsets": [2, 10]}
    file = opened(tmp_path, by_hand(header, bytes(2) + np.float32([1, 2]).tobytes()))
    assert file.tensors["b"].read().tolist() == [1, 2]
    with pytest.raises(TensorError, match="the dtype F4 is not read"):
        file.tensors["a"].read()


def library_accepts(path):
    try:
        with safetensors.safe_open(path, "pt") as file:
            return set(file.keys())
    except Exception:  # noqa: BLE001 (whatever it raises, it refuses)
        return None


@pytest.mark.parametrize("seed", range(4))
def test_what_the_library_refuses_is_refused(seed, tmp_path):
    """Headers changed at random: never accept more than the library, seldom less."""
    random_ = random.Random(seed)
    path = tmp_path / "x.safetensors"
    good = {
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "I8", "shape": [3], "data_offsets": [16, 19]},
        "__metadata__": {"k": "v"},
    }
    accepted = refused = 0
    for _ in range(400):
        header = json.loads(json.dumps(good))
        entry = header[random_.choice("ab")]
        change = random_.randrange(8)
        if change == 0:
            entry["data_offsets"][random_.randrange(2)] += random_.choice(
                (-16, -1, 0, 1, 3, 1 << 62)
            )
        elif change == 1:
            entry["shape"] = random_.choice(
                ([], [0], [4], [2, 2, 1], [1 << 40, 1 << 40], [-2, -2], [2.0])
            )
        elif change == 2:
            entry["dtype"] = random_.choice(("F32", "U8", "I32", "BOOL", "f32", "F128", 3, None))
        elif change == 3:
            del entry[random_.choice(tuple(entry))]
        elif change == 4:
            header["__metadata__"] = random_.choice(
                ({}, {"a": "b"}, [], "x", None, {"a": 1}, {"a": None}, {"a": ["b"]}, 0)
            )
        elif change == 5:
            header["c"] = random_.choice((entry, {}, [], 1))
        elif change == 6:
            entry["more"] = random_.choice((1, None, {"a": [1]}, "x", float("nan")))
        text = json.dumps(header).encode() + b" " * random_.choice((0, 0, 3))
        text = random_.choice((b"", b"", b"", b" ", b"\r\n\t")) + text
        if change == 7:
            cut = random_.randrange(len(text))
            text = text[:cut] + random_.choice((b"", b"}", b"[", b"\xff", b'"')) + text[cut + 1 :]
        path.write_bytes(by_hand(text, bytes(19 + random_.choice((0, 0, 0, -1, 1)))))
        theirs = library_accepts(path)
        try:
            ours = set(open_file(path).tensors)
        except FileError:
            ours = None
        if ours is not None:
            assert theirs is not None, path.read_bytes()
            assert ours == theirs
            accepted += 1
        elif theirs is None:
            refused += 1
        else:
            # Stricter than the library only where a name comes twice or in two tables.
            raise AssertionError(path.read_bytes())
    assert accepted > 20
    assert refused > 100


METADATA = [
    "null", "{}", '{"a":"b"}', '{"a":1}', '{"a":null}', '{"a":NaN}', '{"a":["b"]}', "[]", '"a"',
    "1", '{"a":"\\ud800"}', '{"\\udc00":"a"}', '{"a":"\\ud83d\\ude00"}',
]  # fmt: skip
MORE = ["1", "null", "NaN", "-Infinity", '{"y":[1,{}]}', '"x"', '"\\ud800"', "[1,2]"]
SPACES = [b"", b" ", b"\n\t\r", b"\x0b", b"\xef\xbb\xbf"]


@pytest.mark.parametrize("header", [
    *(f'{{"__metadata__":{m},"a":{json.dumps(F32)}}}'.encode() for m in METADATA),
    *(f'{{"a":{json.dumps(F32)[:-1]},"x":{m}}}}}'.encode() for m in MORE),
    *(space + json.dumps({"a": F32}).encode() for space in SPACES),
    *(json.dumps({"a": F32}).encode() + space for space in SPACES),
    json.dumps({"\ud800": F32}).encode(),
])  # fmt: skip
def test_what_the_library_makes_of_the_header_is_followed(header, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(by_hand(header, bytes(8)))
    try:
        ours = set(open_file(path).tensors)
    except FileError:
        ours = None
    assert ours == library_accepts(path)


def test_a_header_of_lists_takes_little_memory(tmp_path):
    path = tmp_path / "x"
    for header in (
        b'{"a":[' + b"[]," * 20_000_000 + b"1]}",
        b'{"a":[' + b"[]," * 5_000_000 + b"1]}",
        b'{"a":[' + b"1000," * 3_000_000 + b"1]}" + b" " * 1_000,
    ):
        path.write_bytes(by_hand(header))
        before = memory.mark()
        with pytest.raises(
            CorruptFileError, match=r"too long for the 0 bytes|far more|an invalid descr"
        ):
            open_file(path)
        assert memory.grown(before) < 300_000


def test_a_long_header_of_many_small_tensors_is_read(tmp_path):
    entry = {"dtype": "F32", "shape": [1, 1, 1, 1]}
    header = {f"{n}": entry | {"data_offsets": [4 * n, 4 * n + 4]} for n in range(80_000)}
    text = json.dumps(header, separators=(",", ":")).encode()
    path = tmp_path / "x"
    path.write_bytes(by_hand(text, bytes(4 * len(header))))
    assert len(open_file(path).tensors) == len(header)


@pytest.mark.parametrize(
    ("header", "size", "sentence"),
    [
        ({"a": F32 | {"data_offsets": [4, 12]}}, 12, "its tensor a should begin at 0, not at 4"),
        ({"a": F32, "b": F32}, 8, "its tensor b should begin at 8, not at 0"),
        ({"a": F32 | {"data_offsets": [0, 4]}}, 4, "its tensor a of 2 elements cannot take 4"),
        ({"a": F32}, 7, "describes 8 bytes of elements, but 7 are there; it is cut short"),
        ({"a": F32}, 9, "describes 8 bytes of elements, but 9 are there; it is cut short"),
        ({"a": F32 | {"dtype": "F31"}}, 8, "its tensor a has the unknown dtype F31"),
        ({"a": F32 | {"shape": None}}, 8, "its tensor a has an invalid description"),
        ({"__metadata__": {"a": 1}}, 0, "its __metadata__ is not a table of strings"),
        ({"__metadata__": [1]}, 0, "its __metadata__ is not a table of strings"),
        (b"{]", 0, "its header is not valid JSON"),
    ],
)
def test_sentences(header, size, sentence, tmp_path):
    with pytest.raises(CorruptFileError, match=sentence):
        opened(tmp_path, by_hand(header, bytes(size)))
