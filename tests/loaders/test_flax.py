import os
import struct

import msgpack
import numpy as np
import pytest
import torch

from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.files.file_bytes import FileBytes
from bncli.loaders import open_file, open_layer
from bncli.state_dict import batch_norm_layers, read_state

from .files import assert_same, bits
from .flax_files import chunked, extension, flat, flax_file, model, tree
from .memory import grown, mark


@pytest.fixture
def opened(tmp_path):
    def open_(value):
        path = tmp_path / "x.msgpack"
        path.write_bytes(value if isinstance(value, bytes) else flax_file(value))
        return open_file(path)

    return open_


def test_the_layers_of_a_model(opened):
    variables = model()
    layers = batch_norm_layers(opened(variables))
    assert [layer.name for layer in layers] == ["Block_0/BatchNorm_0", "Block_1/BatchNorm_0"]
    for layer, block in zip(layers, variables["params"], strict=True):
        state = read_state(layer)
        params = variables["params"][block]["BatchNorm_0"]
        stats = variables["batch_stats"][block]["BatchNorm_0"]
        assert np.array_equal(state.weight, params["scale"])
        assert np.array_equal(state.bias, params["bias"])
        assert np.array_equal(state.running_mean, stats["mean"])
        assert np.array_equal(state.running_var, stats["var"])
        assert layer.module.convention == "flax"
        assert not layer.module.has_momentum


def test_moments_of_an_optimiser_are_no_layers_and_no_parameters(opened):
    variables = model()
    moments = {"mu": model(seed=1)["params"], "nu": model(seed=2)["params"], "count": np.int32(3)}
    file = opened({"opt_state": [moments, {}], "step": 100, **variables})
    layers = {layer.name: read_state(layer) for layer in batch_norm_layers(file)}
    assert list(layers) == ["Block_0/BatchNorm_0", "Block_1/BatchNorm_0"]
    for name, state in layers.items():
        scale = variables["params"][name.split("/")[0]]["BatchNorm_0"]["scale"]
        assert np.array_equal(state.weight, scale)
    assert "opt_state/0/mu/Block_0/BatchNorm_0/scale" in file.tensors
    assert "step" not in file.tensors


def test_without_scale_and_bias_it_is_a_layer_all_the_same(opened):
    stats = {"mean": np.zeros(3, "f4"), "var": np.ones(3, "f4")}
    file = opened({"batch_stats": {"bn": stats}, "params": {"fc": {"kernel": np.ones((2, 3))}}})
    (layer,) = batch_norm_layers(file)
    assert (layer.name, layer.weight, layer.bias) == ("bn", None, None)


def test_every_dtype_and_the_names_of_lists(opened):
    arrays = {
        name: np.arange(3).astype(name)
        for name in ("float16", "float32", "float64", "int8", "uint32", "bool", "complex64")
    }
    file = opened({"a": [arrays], "s": np.float64(2.5)})
    assert_same(file.tensors, {f"a/0/{name}": array for name, array in arrays.items()})
    assert file.tensors["s"].shape == ()
    packed = {"a": [np.zeros(1)], "list": [extension(np.ones(2))], "n": extension(1.5, kind=3)}
    file = opened(msgpack.packb({**packed, "a": [extension(np.zeros(1))]}))
    assert list(file.tensors) == ["a/0", "list/0", "n"]


def test_bfloat16_and_a_dtype_that_is_not_known(opened):
    wide = torch.randn(5)
    raw = wide.bfloat16().view(torch.uint16).numpy()
    file = opened(msgpack.packb({"a": extension(raw, "bfloat16"), "b": extension(raw, "int4")}))
    assert file.tensors["a"].dtype == "bfloat16"
    assert np.array_equal(file.tensors["a"].read(), wide.bfloat16().float().numpy())
    assert file.tensors["b"].unreadable == "the dtype int4 is not read"


def test_an_array_in_parts_is_one(opened):
    array = np.arange(24, dtype="f4").reshape(4, 6)
    file = opened({"params": {"w": chunked(array, 5), "v": chunked(array, 24)}, "z": array})
    assert list(file.tensors) == ["params/w", "params/v", "z"]
    for ref in file.tensors.values():
        assert bits(ref.read()) == bits(array)
    assert callable(file.tensors["params/w"].storage)
    assert isinstance(file.tensors["params/v"].storage, FileBytes)
    whole = opened(chunked(array, 7) | {"zz": 1})
    assert bits(whole.tensors[""].read()) == bits(array)


def test_as_the_msgpack_package_reads_it(opened, tmp_path):
    """Every kind of mark that MessagePack has, between arrays."""
    others = [
        None, True, False, 0, 127, 128, 2**16, 2**40, -1, -32, -33, -(2**15) - 1, -(2**40), 1.5,
        "x", "y" * 40, "z" * 300, "w" * 70_000, b"b", b"c" * 300, b"d" * 70_000,
        list(range(20)), list(range(70_000)), {str(i): i for i in range(20)}, 5 * (1,),
        *(msgpack.ExtType(9, bytes(n)) for n in (1, 2, 4, 8, 16, 3, 300, 70_000)),
        msgpack.ExtType(2, msgpack.packb((1.5, 2.5))),
    ]  # fmt: skip
    arrays = [np.full(n, i, "f4") for i, n in enumerate((0, 1, 50, 300, 20_000))]
    mixed = {f"k{i}": {"other": other} for i, other in enumerate(others)}
    for i, array in enumerate(arrays):
        mixed[f"k{5 * i}"]["array"] = array
    data = flax_file(mixed)
    found = {}

    def visit(value, name):
        if isinstance(value, dict):
            for key, item in value.items():
                visit(item, f"{name}/{key}" if name else key)
        elif isinstance(value, msgpack.ExtType) and value.code == 1:
            shape, dtype, raw = msgpack.unpackb(value.data)
            found[name] = np.frombuffer(raw, dtype).reshape(shape)

    visit(msgpack.unpackb(data), "")
    file = opened(data)
    assert list(file.tensors) == list(found)
    assert_same(file.tensors, found)


def test_plain_messagepack_is_refused_in_words(opened):
    for value in ({"a": 1, "b": [1.5, "x"]}, {"nd": True, "type": "<f4", "data": b"1234"}):
        with pytest.raises(UnsupportedFileError, match="without arrays as Flax writes them; load"):
            opened(value)


def test_arrays_of_several_gigabytes_stay_in_the_file(tmp_path):
    path = tmp_path / "x"
    nbytes = 3 << 30
    begin = b"\x82\xa1a"
    inner = msgpack.packb((nbytes // 4,))
    inner = b"\x93" + inner + msgpack.packb("float32") + b"\xc6" + struct.pack(">I", nbytes)
    begin += b"\xc9" + struct.pack(">I", len(inner) + nbytes) + b"\x01" + inner
    with path.open("wb") as file:
        file.write(begin)
        file.seek(nbytes, os.SEEK_CUR)
        file.write(b"\xa1b" + msgpack.packb(extension(np.ones(2))))
    before = mark()
    file = open_file(path)
    assert {name: ref.shape for name, ref in file.tensors.items()} == {
        "a": (nbytes // 4,),
        "b": (2,),
    }
    assert grown(before) < 20_000


ARRAY = msgpack.packb(extension(np.ones(2, "f4")))
HOSTILE = {
    "cut": (flax_file(model())[:-3], "cut short"),
    "rest": (flax_file(model()) + b"x", "damaged or cut short at byte"),
    "many": (b"\xdf\xff\xff\xff\xff\xa1a\xdd\xff\xff\xff\xff", "cut short"),
    "deep": (b"\x81\xa1a" * 5000 + b"\xc0", "damaged"),
    "deep lists": (b"\x81\xa1a" + b"\x91" * 5000, "damaged"),
    "long": (b"\x81\xa1a\xc6\xff\xff\xff\xff", "cut short"),
    "mark": (b"\x81\xa1a\xc1", "damaged"),
    "twice": (b"\x82\xa1a" + ARRAY + b"\xa1a" + ARRAY, "damaged"),
    "key": (b"\x82\xa1a\xc0\xc0\xc0", "damaged"),
    "key that is no text": (b"\x82\xa1a\xc0\xa1\xff\xc0", "damaged"),
    "long key": (b"\x82\xa1a\xc0" + msgpack.packb("x" * 5000) + b"\xc0", "damaged"),
    "short": (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((3,), "float32", b"1234")))}),
        r"its array a of shape \(3,\) in float32 cannot take 4 bytes"),
    "huge": (
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((2**62, 2**62), "float32", b"")))}),
        "cannot take 0 bytes",
    ),
    "axes": (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((1,) * 99, "int8", b"1")))}),
        "damaged"),
    "two": (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((1,), "int8")))}), "damaged"),
    "inside": (
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(((1,), "int8", b"1")) + b"x")}),
        "damaged",
    ),
    "no parts": (msgpack.packb({"a": {"__msgpack_chunked_array__": True}}), "damaged"),
    "parts": (
        msgpack.packb({"a": chunked(np.ones(4), 2) | {"shape": {"0": 5}}}),
        r"its array a of shape \(5,\) in float64 cannot take 32 bytes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_damaged_says_so(kind, opened):
    data, sentence = HOSTILE[kind]
    with pytest.raises(CorruptFileError, match=sentence):
        opened(data)


def test_a_shape_of_no_elements_is_held_to_its_bytes(opened):
    inner = msgpack.packb(((2**62, 0), "float32", b""))
    file = opened(msgpack.packb({"a": msgpack.ExtType(1, inner)}))
    assert file.tensors["a"].numel == 0


def test_a_layer_by_its_name(opened, tmp_path):
    opened(model())
    state = open_layer(f"{tmp_path / 'x.msgpack'}::Block_1/BatchNorm_0")
    expected = flat(model())["batch_stats/Block_1/BatchNorm_0/var"]
    assert np.array_equal(state.running_var, expected)
    assert tree(model())  # the writer leaves its argument as it is
    assert isinstance(model()["params"], dict)


def test_names_that_repeat_a_long_one_are_bounded(opened):
    """6 MB of a file would ask for a gigabyte of names."""
    values = {f"{i:05}": extension(np.zeros(1, "f4")) for i in range(40_000)}
    data = msgpack.packb({"params": {"a" * 4000: values}})
    before = mark()
    with pytest.raises(UnsupportedFileError, match="the names of its tensors take more than 64 MB"):
        opened(data)
    assert grown(before) < 120_000
