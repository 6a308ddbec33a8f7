"""Small ONNX models made by the onnx package, and the bits of their tensors."""

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from bncli.loaders import open_file
from tests.loaders.files import Sample, bits, dtype_name, newer_values, values

CODES = {
    "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16, "float8_e4m3fn": TensorProto.FLOAT8E4M3FN,
    "float8_e4m3fnuz": TensorProto.FLOAT8E4M3FNUZ, "float8_e5m2": TensorProto.FLOAT8E5M2,
    "float8_e5m2fnuz": TensorProto.FLOAT8E5M2FNUZ, "float8_e8m0fnu": 24,
    "int8": TensorProto.INT8, "int16": TensorProto.INT16, "int32": TensorProto.INT32,
    "int64": TensorProto.INT64, "uint8": TensorProto.UINT8, "uint16": TensorProto.UINT16,
    "uint32": TensorProto.UINT32, "uint64": TensorProto.UINT64, "bool": TensorProto.BOOL,
    "complex64": TensorProto.COMPLEX64, "complex128": TensorProto.COMPLEX128,
}  # fmt: skip
FIELDS = {
    "float32": ("float_data", "<f4"), "complex64": ("float_data", "<f4"),
    "float64": ("double_data", "<f8"), "complex128": ("double_data", "<f8"),
    "int64": ("int64_data", "<i8"), "uint32": ("uint64_data", "<u4"),
    "uint64": ("uint64_data", "<u8"), "int8": ("int32_data", "<i1"),
    "int16": ("int32_data", "<i2"), "int32": ("int32_data", "<i4"),
    "float16": ("int32_data", "<u2"), "bfloat16": ("int32_data", "<u2"),
    "uint16": ("int32_data", "<u2"),
}  # fmt: skip
"""Which field has the elements of a dtype, and what they are there; the rest are bytes in int32."""


def raw(name, value):
    """A TensorProto with the elements as they lie in memory."""
    shape, data = bits(value)
    code = CODES[dtype_name(value)]
    return TensorProto(name=name, dims=shape, data_type=code, raw_data=data)


def typed(name, value):
    """A TensorProto with the elements in the field that is for their dtype."""
    shape, data = bits(value)
    field, dtype = FIELDS.get(dtype_name(value), ("int32_data", "<u1"))
    numbers = np.frombuffer(data, dtype).tolist()
    return TensorProto(
        name=name, dims=shape, data_type=CODES[dtype_name(value)], **{field: numbers}
    )


def model(nodes=(), tensors=(), inputs=("x",), opset=17, functions=(), **more):
    """A ModelProto, as bytes."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        list(tensors),
        **more,
    )
    opsets = [
        helper.make_opsetid("", opset),
        *(helper.make_opsetid(f.domain, 1) for f in functions),
    ]
    made = helper.make_model(graph, opset_imports=opsets, functions=list(functions))
    return made.SerializeToString()


@dataclass(frozen=True)
class Norm:
    """A BatchNormalization node and its four tensors."""

    node: onnx.NodeProto
    tensors: list


def norm(
    prefix="bn.", input_name="x", output="y", channels=3, make=raw, dtype=torch.float32, **arguments
):
    """A node whose parameters are called as PyTorch's."""
    leaves = ("weight", "bias", "running_mean", "running_var")
    torch.manual_seed(channels)
    tensors = [make(prefix + leaf, torch.rand(channels).to(dtype)) for leaf in leaves]
    outputs = arguments.pop("outputs", [output])
    names = [input_name, *(tensor.name for tensor in tensors)]
    return Norm(helper.make_node("BatchNormalization", names, outputs, **arguments), tensors)


def norm_model(opset=17, **arguments):
    """A model of one such node."""
    made = norm(**arguments)
    return model([made.node], made.tensors, opset=opset)


def opened(folder, data, name="m.onnx"):
    """The file that these bytes are."""
    path = folder / name
    path.write_bytes(data)
    return open_file(path)


def samples():
    """One model with everything raw; one with typed fields, constants and a file beside it."""
    every = values() | newer_values()
    dense = {name: value.contiguous() for name, value in every.items()}
    made = norm("layer.", channels=4)
    expected = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in made.tensors}
    plain = model([made.node], [raw(*item) for item in dense.items()] + made.tensors)
    outside = TensorProto(name="far", dims=(2, 2), data_type=TensorProto.FLOAT, data_location=1)
    for key, value in {"location": "x.data", "offset": "8", "length": "16"}.items():
        outside.external_data.add(key=key, value=value)
    far = torch.randn(2, 2)
    constants = [
        helper.make_node("Constant", [], [name], value=typed("", value))
        for name, value in list(dense.items())[10:]
    ]
    first = [typed(*item) for item in list(dense.items())[:10]]
    rest = [typed(tensor.name, expected[tensor.name]) for tensor in made.tensors]
    files = {
        "x": model([*constants, made.node], [*first, *rest, outside]),
        "x.data": bytes(8) + bits(far)[1],
    }
    return {
        "onnx": Sample({"x": plain}, "x", "onnx", dense | expected),
        "onnx-typed": Sample(files, "x", "onnx", dense | expected | {"far": far}),
    }
