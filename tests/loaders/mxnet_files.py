"""MXNet's files, put together as its NDArray::Save and its symbols' JSON have them."""

import json
import struct

import numpy as np

FLAGS = {
    "float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6,
    "bool": 7, "int16": 8, "uint16": 9, "uint32": 10, "uint64": 11, "bfloat16": 12,
}  # fmt: skip
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA


def shaped(sizes):
    return struct.pack(f"<I{len(sizes)}q", len(sizes), *sizes)


def dense(array, version=V2, dtype=""):
    """One array, in the layout of a version; the oldest has none."""
    flag = struct.pack("<2iI", 1, 0, FLAGS[dtype or array.dtype.name])
    data = np.ascontiguousarray(array).tobytes()
    if not version:
        return struct.pack(f"<{1 + array.ndim}I", array.ndim, *array.shape) + flag + data
    kind = b"" if version == V1 else struct.pack("<I", 0)
    return struct.pack("<I", version) + kind + shaped(array.shape) + flag + data


def row_sparse(shape, rows, values):
    """An array of which some rows are stored."""
    return (
        struct.pack("<2I", V2, 1)
        + shaped(values.shape)
        + shaped(shape)
        + struct.pack("<2iI", 1, 0, FLAGS[values.dtype.name])
        + struct.pack("<I", FLAGS["int64"])
        + shaped((len(rows),))
        + values.tobytes()
        + np.array(rows, "i8").tobytes()
    )


def nothing():
    """An array that was never given a shape."""
    return struct.pack("<3I", V2, 0, 0)


def listed(arrays, names):
    """A file of arrays as bytes, with their names."""
    encoded = [name.encode() for name in names]
    return (
        struct.pack("<3Q", 0x112, 0, len(arrays))
        + b"".join(arrays)
        + struct.pack("<Q", len(encoded))
        + b"".join(struct.pack("<Q", len(name)) + name for name in encoded)
    )


def saved(arrays, version=V2):
    """A file of arrays by name."""
    return listed([dense(array, version) for array in arrays.values()], list(arrays))


def model(names=("bn0", "bn1"), channels=3, seed=0):
    """The arrays of a network: a convolution and a BatchNorm, for each name."""
    random = np.random.default_rng(seed)
    arrays = {}
    for number, name in enumerate(names):
        arrays[f"arg:conv{number}_weight"] = random.normal(size=(channels, channels, 1, 1))
        for leaf in ("arg:{}_gamma", "arg:{}_beta", "aux:{}_moving_mean", "aux:{}_moving_var"):
            arrays[leaf.format(name)] = random.uniform(0.5, 2, channels)
    return {name: array.astype("f4") for name, array in arrays.items()}


def symbol(layers, attrs="attrs", front="Convolution", **own):
    """The graph of that network as JSON: of each layer the attributes of its BatchNorm by name."""
    nodes = [{"op": "null", "name": "data", "inputs": []}]

    def add(op, name, inputs=(), attributes=None):
        node = {"op": op, "name": name, "inputs": [[each, 0, 0] for each in inputs]}
        nodes.append(node | ({attrs: attributes} if attributes else {}))
        return len(nodes) - 1

    last = 0
    for number, (name, attributes) in enumerate(layers.items()):
        weight = add("null", f"conv{number}_weight", attributes={"__shape__": "(3, 3, 1, 1)"})
        last = add(front, f"conv{number}", (last, weight), {"no_bias": "True", **own})
        leaves = ("gamma", "beta", "moving_mean", "moving_var")
        variables = [add("null", f"{name}_{leaf}") for leaf in leaves]
        last = add("BatchNorm", f"{name}_fwd", (last, *variables), attributes)
    return json.dumps({"nodes": nodes, "arg_nodes": [0], "heads": [[last, 0, 0]]}).encode()
