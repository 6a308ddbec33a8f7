"""Programs of torch.export, written from the format's own description."""

import io
import json
import zipfile

import torch

CODES = {
    torch.uint8: 1, torch.int8: 2, torch.int16: 3, torch.int32: 4, torch.int64: 5,
    torch.float16: 6, torch.float32: 7, torch.float64: 8, torch.complex64: 10,
    torch.complex128: 11, torch.bool: 12, torch.bfloat16: 13, torch.uint16: 28,
    torch.float8_e4m3fn: 29, torch.float8_e5m2: 30, torch.float8_e4m3fnuz: 31,
    torch.float8_e5m2fnuz: 32, torch.float8_e8m0fnu: 33, torch.uint32: 34, torch.uint64: 35,
}  # fmt: skip


def described(tensor):
    """A tensor's description in a table of weights."""
    return {
        "dtype": CODES[tensor.dtype],
        "sizes": [{"as_int": size} for size in tensor.shape],
        "strides": [{"as_int": step} for step in tensor.stride()],
        "storage_offset": {"as_int": tensor.storage_offset()},
        "layout": 7,
        "requires_grad": False,
        "device": {"type": "cpu", "index": None},
    }


def stored(tensor):
    """The bytes of a tensor's whole storage."""
    whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
    return whole.numpy().tobytes()


def value(name):
    return {"as_tensor": {"name": name}}


def node(operator, args, outputs=("out",), **more):
    """A node of a graph: a text is the name of a value, anything else is an argument as it is."""
    inputs = [
        {"name": key, "arg": value(arg) if isinstance(arg, str) else arg, "kind": 1}
        for key, arg in args.items()
    ]
    return {
        "target": f"torch.ops.aten.{operator}",
        "inputs": inputs,
        "outputs": [value(output) for output in outputs],
        "metadata": {},
        **more,
    }


def number(of):
    return {"as_float": of}


def norm(layer, operator="batch_norm.default", given="x", outputs=("out",), **changed):
    """A batch_norm of the layer of that name, in evaluation."""
    args = {
        "input": given,
        **{leaf: f"{layer}.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")},
        "training": {"as_bool": False},
        "momentum": number(0.1),
        "eps": number(1e-5),
    }
    return node(operator, args | changed, outputs)


def program(names, nodes, constants=()):
    """A program whose inputs are called as its tensors."""
    specs = [
        {"tensor_constant": {"arg": {"name": name}, "tensor_constant_name": name}}
        if name in constants
        else {"parameter": {"arg": {"name": name}, "parameter_name": name}}
        for name in names
    ]
    return {
        "graph_module": {
            "graph": {"inputs": [], "outputs": [], "nodes": nodes, "tensor_values": {}},
            "signature": {"input_specs": specs, "output_specs": []},
        },
        "schema_version": {"major": 8, "minor": 20},
    }


def members(tensors, nodes, name="model", pickled=()):
    """The members of an archive with one program."""
    out, config = {}, {}
    for number_, (full, tensor) in enumerate(tensors.items()):
        path = f"weight_{number_}"
        out[f"m/data/weights/{path}"] = stored(tensor)
        config[full] = {
            "path_name": path,
            "is_param": False,
            "use_pickle": full in pickled,
            "tensor_meta": described(tensor),
        }
    out[f"m/data/weights/{name}_weights_config.json"] = json.dumps({"config": config}).encode()
    out[f"m/models/{name}.json"] = json.dumps(program(tensors, nodes)).encode()
    return out | {"m/byteorder": b"little", "m/archive_format": b"pt2"}


def archived(parts, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for member, data in parts.items():
            archive.writestr(member, data)
    return out.getvalue()


def state(layer="bn", width=4):
    """The vectors of a layer, by their names."""
    return {
        f"{layer}.{leaf}": torch.rand(width)
        for leaf in ("weight", "bias", "running_mean", "running_var")
    }


def write(path, parts):
    """An archive of these members, at `path`."""
    path.write_bytes(archived(parts))
    return path
