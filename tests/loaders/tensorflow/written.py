"""A small writer of TensorFlow's checkpoints and graphs, from the formats' documentation.

The table is LevelDB's (table_format.md), the entries are those of tensor_bundle.proto, and the
checksums are computed bit by bit.
"""

import struct

import numpy as np

DTYPES = {
    "float32": 1, "float64": 2, "int32": 3, "uint8": 4, "int16": 5, "int8": 6, "complex64": 8,
    "int64": 9, "bool": 10, "uint16": 17, "complex128": 18, "float16": 19, "uint32": 22,
    "uint64": 23,
}  # fmt: skip
MAGIC = bytes.fromhex("57fb808b247547db")


def crc32c(data):
    """CRC-32C, one bit after the other."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    """The checksum as LevelDB stores it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(number):
    """A number of a protobuf message or a block."""
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number, value):
    """One field of a message: a number, bytes, a text, or a float of four bytes."""
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def shape_proto(shape):
    return b"".join(field(2, field(1, size)) for size in shape)


def block(pairs, interval=16, compression=0):
    """A block of sorted keys and values, with its trailer."""
    out, restarts, last = bytearray(), [], b""
    for count, (key, value) in enumerate(pairs):
        shared = 0
        if count % interval == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += key[shared:] + value
        last = key
    out += struct.pack(f"<{max(1, len(restarts))}I", *(restarts or [0]))
    out += struct.pack("<I", max(1, len(restarts)))
    out.append(compression)
    return bytes(out + struct.pack("<I", masked(out)))


def handle(offset, size):
    return varint(offset) + varint(size)


def table(entries, *, per_block=40, compression=0):
    """A sorted table of {key: value}, so many entries a block."""
    out, handles = bytearray(), []
    pairs = sorted(entries.items())
    for at in range(0, len(pairs), per_block):
        some = pairs[at : at + per_block]
        data = block(some, compression=compression)
        handles.append((some[-1][0] + b"~", handle(len(out), len(data) - 5)))
        out += data
    meta = len(out), len(block([])) - 5
    out += block([])
    data = block(handles, interval=1)
    index = len(out), len(data) - 5
    out += data
    return bytes(out + (handle(*meta) + handle(*index)).ljust(40, b"\0") + MAGIC)


def entry(dtype=1, shape=(), offset=0, size=0, crc=None, shard=0, slices=()):
    """A BundleEntryProto."""
    out = field(1, dtype) + field(2, shape_proto(shape))
    out += field(3, shard) if shard else b""
    out += (field(4, offset) if offset else b"") + (field(5, size) if size else b"")
    out += b"" if crc is None else varint(6 << 3 | 5) + struct.pack("<I", crc)
    return out + b"".join(field(7, each) for each in slices)


def header(shards=1, *, big=False):
    """A BundleHeaderProto."""
    return field(1, shards) + (field(2, 1) if big else b"") + field(3, field(1, 1))


def slice_proto(*extents):
    """A TensorSliceProto of (start, length), or None for all of an axis."""
    return b"".join(
        field(
            1, b"" if part is None else (field(1, part[0]) if part[0] else b"") + field(2, part[1])
        )
        for part in extents
    )


def text_bytes(data):
    """A tensor that is one text, as the data file has it."""
    return varint(len(data)) + struct.pack("<I", masked(struct.pack("<I", len(data)))) + data


def object_graph(names, slots=()):
    """A TrackableObjectGraph with a node for each {key: full name}."""
    nodes = b"".join(
        field(1, field(2, field(1, "VARIABLE_VALUE") + field(2, full) + field(3, key)))
        for key, full in names.items()
    )
    return field(1, b"") + nodes + b"".join(slots)


def bundle(
    arrays, *, shards=1, texts=None, prefix="model", byteorder="<", checksums=True, **options
):
    """The files of a checkpoint by their names: arrays and texts by key, spread over shards."""
    data = [bytearray() for _ in range(shards)]
    entries = {b"": header(shards, big=byteorder == ">")}
    for number, (key, value) in enumerate((arrays | (texts or {})).items()):
        shard = number % shards
        if isinstance(value, bytes):
            stored, dtype, shape = text_bytes(value), 7, ()
        else:
            array = np.ascontiguousarray(value)
            stored = array.astype(array.dtype.newbyteorder(byteorder)).tobytes()
            dtype, shape = DTYPES[array.dtype.name], np.shape(value)
        name = key if isinstance(key, bytes) else key.encode()
        entries[name] = entry(
            dtype, shape, len(data[shard]), len(stored),
            masked(stored) if checksums else None, shard,
        )  # fmt: skip
        data[shard] += stored
    files = {f"{prefix}.index": table(entries, **options)}
    for shard, held in enumerate(data):
        files[f"{prefix}.data-{shard:05d}-of-{shards:05d}"] = bytes(held)
    return files


def attribute(name, value):
    """An attribute of a node: a text, a flag, a float, ("tensor", number) or ("function", name)."""
    if isinstance(value, tuple):
        kind, what = value
        if kind == "function":
            held = field(10, field(1, what))
        elif kind == "list":  # the same number as a list of floats
            held = field(8, field(1, 1) + field(2, b"") + field(5, struct.pack("<f", what)))
        else:
            held = field(8, field(1, 1) + field(2, b"") + field(4, struct.pack("<f", what)))
    elif isinstance(value, bool):
        held = varint(5 << 3) + varint(value)
    elif isinstance(value, float):
        held = field(4, value)
    else:
        held = field(2, value)
    return field(1, name) + field(2, held)


def node(name, op, inputs=(), **attributes):
    """A NodeDef."""
    out = field(1, name) + field(2, op) + b"".join(field(3, each) for each in inputs)
    return out + b"".join(field(5, attribute(*item)) for item in attributes.items())


def function(name, arguments, nodes):
    """A FunctionDef."""
    signature = field(1, name) + b"".join(field(2, field(1, each)) for each in arguments)
    return field(1, signature) + b"".join(field(3, each) for each in nodes)


def meta_graph(nodes=(), functions=(), objects=b""):
    """A MetaGraphDef."""
    library = b"".join(field(1, each) for each in functions)
    graph = b"".join(field(1, each) for each in nodes) + field(2, library)
    return field(1, b"") + field(2, graph) + (field(7, objects) if objects else b"")


def saved_model(*graphs):
    """A SavedModel's file."""
    return field(1, 1) + b"".join(field(2, graph) for graph in graphs)


def saved_objects(variables, captured):
    """A SavedObjectGraph: variables by name ("" for another object), and what functions capture."""
    nodes = b"".join(field(1, field(7, field(1, 1) + field(6, name)) if name else b"")
                     for name in variables)  # fmt: skip
    return nodes + b"".join(
        field(2, field(1, name) + field(2, field(2, b"".join(map(varint, bound)))))
        for name, bound in captured.items()
    )


FOUR = ("gamma", "beta", "moving_mean", "moving_variance")


def reads(*names):
    """Nodes for variables, and for their values as `NAME/read`."""
    return [
        each
        for name in names
        for each in (
            node(name, "VarHandleOp", shared_name=name),
            node(f"{name}/read", "ReadVariableOp", [name]),
        )
    ]


def saved_net():
    """A SavedModel: its files, "" for its folder, the container, and its tensors.

    One layer is an operation in a function, the other is single operations; a tree of objects
    names the variables.
    """
    random = np.random.default_rng(5)
    layers = [[f"{layer}/{leaf}" for leaf in FOUR] for layer in ("stem/bn", "head/bn")]
    names = ["stem/kernel", *layers[0], *layers[1]]
    arrays = {name: random.random(3).astype("f4") for name in names}
    arrays["stem/kernel"] = random.random((1, 1, 2, 3)).astype("f4")
    stored = {f"net/{at}/.ATTRIBUTES/VARIABLE_VALUE": name for at, name in enumerate(names)}
    files = bundle(
        {key: arrays[name] for key, name in stored.items()},
        texts={"_CHECKPOINTABLE_OBJECT_GRAPH": object_graph(stored)},
        prefix="variables/variables",
    )
    inner = function("f", ["x", "k", "g", "b", "m", "v"], [
        node("y", "Conv2D", ["x", "k"]),
        node("n", "FusedBatchNormV3", ["y", "g", "b", "m", "v"], epsilon=2e-3, is_training=False),
        node("t", "FusedBatchNormV3", ["y", "g", "b", "m", "v"], epsilon=2e-3,
             exponential_avg_factor=0.05),
    ])  # fmt: skip
    gamma, beta, mean, variance = (f"{name}/read" for name in layers[1])
    nodes = [
        *reads(*names),
        node("f", "StatefulPartitionedCall", ["x", *names[:5]], f=("function", "f")),
        node("eps", "Const", value=("tensor", 3e-3)),
        node("add", "AddV2", [variance, "eps"]), node("root", "Rsqrt", ["add"]),
        node("inverse", "Mul", ["root", gamma]), node("product", "Mul", ["f", "inverse"]),
        node("shift", "Mul", [mean, "inverse"]), node("less", "Sub", [beta, "shift"]),
    ]  # fmt: skip
    objects = saved_objects(names, {"f": list(range(5))})
    files["saved_model.pb"] = saved_model(meta_graph(nodes, [inner], objects))
    return files, "", "tensorflow", arrays
