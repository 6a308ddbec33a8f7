"""One small honest file of every container, and what torch, NumPy or safetensors reads in it."""

import gzip
import io
import json
import tarfile
import warnings
import zipfile
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from . import keras_files, mxnet_files, paddle_files
from .exported import archived, members, norm, program
from .flax_files import chunked, flat, flax_file, haiku_arrays, model


@dataclass(frozen=True)
class Sample:
    """Files by name, the one to open, the container, and the tensors that must be found.

    `main` is "" where the folder is to be opened. Names may have folders in them. `parts_by_name`
    says that the other files are found by the name of the one to open.
    """

    files: dict
    main: str
    container: str
    expected: dict
    parts_by_name: bool = False


def values():
    """A state_dict with views, strides, offsets, shared storages and every plain dtype."""
    torch.manual_seed(0)
    base = torch.randn(4, 6)
    tensors = {
        "conv.weight": torch.randn(3, 2, 2, 2),
        "transposed": base.t(),
        "column": base[:, 2],
        "inner": base[1:3, 1:5:2],
        "expanded": torch.randn(3, 1).expand(3, 4),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "bn.weight": torch.rand(4),
        "bn.bias": torch.rand(4),
        "bn.running_mean": torch.randn(4),
        "bn.running_var": torch.rand(4),
        "bn.num_batches_tracked": torch.tensor(17),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    for dtype in (
        torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.int16, torch.int32,
        torch.int64, torch.uint8, torch.bool, torch.complex64, torch.complex128,
    ):  # fmt: skip
        tensors[str(dtype).removeprefix("torch.")] = (torch.randn(5) * 3).to(dtype)
    return tensors


def newer_values():
    """The dtypes that only the newer rebuilding function and safetensors know."""
    tensors = {}
    for dtype in (
        torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2,
        torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
    ):  # fmt: skip
        bits = torch.randint(0, 256, (6 * dtype.itemsize,), dtype=torch.uint8)
        tensors[str(dtype).removeprefix("torch.")] = bits.view(dtype)
    return tensors


def variables():
    """Those of `values` that TensorFlow has a dtype for, as NumPy holds them."""
    plain = {k: v for k, v in values().items() if v.dtype != torch.bfloat16}
    arrays = {k.replace(".", "/"): v.contiguous().numpy() for k, v in plain.items()}
    return arrays | {"wide": np.arange(5, dtype="u8"), "short": np.arange(3, dtype="u2")}


TYPED = np.array([[1, 2.5], [-3e-2, 0.1], [np.nan, -np.inf]], np.float32)


def saved(obj, **options):
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(obj, out, **options)
    return out.getvalue()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.bn = nn.BatchNorm2d(3, eps=1e-3, momentum=0.03)
        self.blocks = nn.ModuleList([nn.Linear(3, 2), nn.BatchNorm1d(2, momentum=None)])
        self.norm = nn.InstanceNorm2d(3, affine=True, track_running_stats=True)
        self.layer_norm = nn.LayerNorm(3)
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x):
        return self.layer_norm(self.norm(self.bn(self.conv(x))).mean((2, 3)))


def scripted(module):
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), out)
    return out.getvalue()


def samples():
    """Sample files by a short name."""
    from .distributed import small

    ranks, pieces = small()
    import safetensors.torch

    from .onnx.models import samples as onnx_models
    from .tensorflow.written import bundle, saved_net

    tensors = values()
    every = tensors | newer_values()
    arrays = {k: v.contiguous().numpy() for k, v in list(tensors.items())[:6]}
    compressed, plain, fortran = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(plain, **{k.replace(".", "/"): v for k, v in arrays.items()})
    np.savez_compressed(compressed, **arrays)
    paddle = paddle_files.arrays()
    haiku = io.BytesIO()
    np.savez(haiku, **haiku_arrays())
    np.save(fortran, np.asfortranarray(arrays["transposed"].astype(">f4")))
    dense = {k: v.contiguous() for k, v in every.items()}
    del dense["complex128"]  # no dtype of safetensors
    net = Net().eval()
    first = {k: dense[k] for k in list(dense)[:9]}
    second = {k: dense[k] for k in list(dense)[9:]}
    index = {
        "metadata": {"total_size": 1},
        "weight_map": dict.fromkeys(first, "m-1-of-2.safetensors")
        | dict.fromkeys(second, "m-2-of-2.safetensors"),
    }
    groups, names, config = keras_files.net_3()
    keras_2, keras_3 = keras_files.keras_2(*keras_files.net_2()), keras_files.keras_3(groups, names)
    plain_hdf5 = hdf5(arrays)
    return {
        "npy": Sample(
            {"x": fortran.getvalue()}, "x", "npy", {"": arrays["transposed"].astype(">f4")}
        ),
        "npz": Sample(
            {"x": plain.getvalue()}, "x", "npz", {k.replace(".", "/"): v for k, v in arrays.items()}
        ),
        "npz-compressed": Sample({"x": compressed.getvalue()}, "x", "npz", arrays),
        "torch-zip": Sample(
            {"x": saved(every)}, "x", "torch-zip", every
        ),
        "torch-legacy": Sample(
            {"x": saved(tensors, _use_new_zipfile_serialization=False)},
            "x", "torch-legacy", tensors,
        ),
        "torch-module": Sample({"x": saved(net)}, "x", "torch-zip", net.state_dict()),
        "torchscript": Sample({"x": scripted(net)}, "x", "torchscript", net.state_dict()),
        "torch-export": Sample(
            {"x": archived(members(every, [norm("bn")]))}, "x", "torch-export", every
        ),
        "torch-export-old": Sample(
            {
                "x": packed({
                    "serialized_exported_program.json": json.dumps(program(every, [norm("bn")])),
                    "serialized_state_dict.pt": saved(every),
                    "serialized_constants.pt": saved({"constant": torch.ones(2)}),
                })
            },
            "x", "torch-export", every,
        ),
        "safetensors": Sample(
            {"x": safetensors.torch.save(dense)}, "x", "safetensors", dense
        ),
        "sharded": Sample(
            {
                "x": json.dumps(index).encode(),
                "m-1-of-2.safetensors": safetensors.torch.save(first),
                "m-2-of-2.safetensors": safetensors.torch.save(second),
            },
            "x", "safetensors", dense,
        ),
        "flax": Sample({"x": flax_file(model())}, "x", "flax-msgpack", flat(model())),
        "paddle": Sample({"x": paddle_files.saved(paddle)}, "x", "paddle", paddle),
        "paddle-parts": Sample(
            {"x": paddle_files.saved(paddle, 2, most=20)}, "x", "paddle", paddle
        ),
        "deepspeed": Sample(
            {
                "latest": b"step1",
                "step1/mp_rank_00_model_states.pt": saved({"module": net.state_dict(), "x": [1]}),
            },
            "", "deepspeed", net.state_dict(),
        ),
        "mxnet": Sample(
            {
                "x-0000.params": mxnet_files.saved(mxnet_files.model()),
                "x-symbol.json": mxnet_files.symbol({"bn0": {}, "bn1": {"fix_gamma": "False"}}),
            },
            "x-0000.params", "mxnet", mxnet_files.model(),
        ),
        "flax-chunked": Sample(
            {"x": flax_file({"a": {"w": chunked(arrays["transposed"], 5)}, "step": 3})},
            "x", "flax-msgpack", {"a/w": arrays["transposed"]},
        ),
        "npz-haiku": Sample({"x": haiku.getvalue()}, "x", "npz", haiku_arrays()),
        "keras-2": Sample({"x": keras_2}, "x", "keras-h5", keras_files.variables(keras_2)),
        "keras-3": Sample({"x": keras_3}, "x", "keras-h5", keras_files.variables(keras_3)),
        "keras": Sample(
            {"x": keras_files.archive(keras_3, config)}, "x", "keras",
            keras_files.variables(keras_3),
        ),
        "keras-deflated": Sample(
            {"x": keras_files.archive(keras_3, config, compression=zipfile.ZIP_DEFLATED)},
            "x", "keras", keras_files.variables(keras_3),
        ),
        "hdf5": Sample({"x": plain_hdf5}, "x", "hdf5", keras_files.variables(plain_hdf5)),
        "torch-dcp": Sample(ranks.parts(), "", "torch-dcp", pieces),
        "tensorflow": Sample(
            bundle(variables(), shards=2, per_block=5), "model.index", "tensorflow", variables(),
            parts_by_name=True,
        ),
        "tensorflow-graph": Sample(*saved_net(), parts_by_name=True),
        "nested": Sample(
            {"x": packed({"data": b"{}", "a/policy.pth": saved(every), "net.pt": saved(net)})},
            "x", "torch-zip in zip",
            {f"a.policy.{k}": v for k, v in every.items()}
            | {f"net.{k}": v for k, v in net.state_dict().items()},
        ),
        **onnx_models(),
        "tar": Sample(
            {"x": tarred({"a/net.pt": saved(net), "arrays.npz": plain.getvalue()})},
            "x", "npz and torch-zip in tar",
            {f"a.net.{k}": v for k, v in net.state_dict().items()}
            | {f"arrays.{k.replace('.', '/')}": v for k, v in arrays.items()},
        ),
        "packed": Sample(
            {"x": gzip.compress(saved(every))}, "x", "torch-zip in gzip", every
        ),
        "tar-gz": Sample(
            {"x": gzip.compress(tarred({"net.pt": saved(net)}))}, "x", "torch-zip in tar in gzip",
            {f"net.{k}": v for k, v in net.state_dict().items()},
        ),
        "json": Sample(
            {"x": b"[[[1, 2.5]], [[-3e-2, 0.1]], [[nan, -Infinity]]]"}, "x", "json",
            {"": TYPED.reshape(3, 1, 2)},
        ),
        "csv": Sample(
            {"x": b"left,right\n1,2.5\n-3e-2,0.1\nnan,-inf\n"}, "x", "csv", {"": TYPED}
        ),
    }  # fmt: skip


def hdf5(arrays):
    """An HDF5 file with arrays as they are, in chunks, packed, in the header, and big-endian."""
    import h5py

    out = io.BytesIO()
    whole = np.arange(60, dtype=np.float32).reshape(12, 5)
    with h5py.File(out, "w", libver="latest") as file:
        for name, values in arrays.items():
            file[name] = values
        file.create_dataset("packed", data=whole, chunks=(5, 2), compression="gzip", shuffle=True)
        file.create_dataset("summed", data=whole, chunks=(5, 5), fletcher32=True)
        file["a/big"] = whole.astype(">f8")
        file["a/integers"] = np.arange(5, dtype=">i2")
        file["a/flags"] = np.array([True, False])
        file["a/complex"] = np.array([1 + 2j, 3j])
        file["a/half"] = whole.astype(np.float16)
    return out.getvalue()


def packed(members, compression=zipfile.ZIP_STORED):
    """A ZIP archive of {name: bytes}, as `zipfile` writes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return out.getvalue()


def tarred(members, form=tarfile.GNU_FORMAT):
    """A tar archive of {name: bytes}, as `tarfile` writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        end = archive.offset + 2 * tarfile.BLOCKSIZE  # without what makes a tape's record full
    return out.getvalue()[:end]


def write(directory, sample):
    """Put a sample's files into a directory; the path to open."""
    for file_name, data in sample.files.items():
        (directory / file_name).parent.mkdir(parents=True, exist_ok=True)
        (directory / file_name).write_bytes(data)
    return directory / sample.main


def bits(value):
    """The shape of a tensor or array, and its elements in C order as little-endian bytes."""
    if isinstance(value, torch.Tensor):
        shape = tuple(value.shape)
        flat = value.detach().contiguous().reshape(-1)
        return shape, bytes(flat.view(torch.uint8).numpy().tobytes()) if flat.numel() else b""
    array = np.ascontiguousarray(value)
    little = array.astype(array.dtype.newbyteorder("<"))
    return value.shape, little.tobytes()


def dtype_name(value):
    """PyTorch's name of the dtype of a tensor or an array."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype).removeprefix("torch.")
    return value.dtype.newbyteorder("=").name


def assert_same(refs, expected):
    """Every expected tensor is among the references, with its dtype and every bit."""
    for key, value in expected.items():
        ref = refs[key]
        assert ref.name == key
        assert ref.dtype == dtype_name(value), key
        assert bits(ref.stored()) == bits(value), key
        if isinstance(value, torch.Tensor) and value.numel() and value.dtype not in WITHOUT_FLOAT:
            decoded = torch.from_numpy(np.array(ref.read()))
            wide = value.to(decoded.dtype)
            assert torch.equal(decoded, wide) or torch.allclose(
                decoded, wide, rtol=0, atol=0, equal_nan=True
            ), key


WITHOUT_FLOAT = {torch.complex32, torch.uint16, torch.uint32, torch.uint64}
