"""Small files that would grow: each is read or refused with little memory and in little time.

What is in one is honest, but there is very much of it, or it is named by very long names. Each is
opened in a process of its own, whose highest use of memory and time of the processor count.
"""

import io
import json
import struct
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import pytest

from tests.loaders import mxnet_files
from tests.loaders.tensorflow import written

MOST_MEGABYTES = 300
MOST_SECONDS = 5
CHILD = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
from bncli.errors import BncliError
from bncli.loaders import open_model
from bncli.state_dict import batch_norm_layers
try:
    file = open_model(Path(sys.argv[1]))
    batch_norm_layers(file)
    for ref in list(file.tensors.values())[:1]:
        ref.read()
    print("read")
except BncliError as error:
    print("refused", error)
used = resource.getrusage(resource.RUSAGE_SELF)
high = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(high.split()[1]) // 1024, used.ru_utime + used.ru_stime)
"""


def onnx_attributes(folder):
    """A node of very many empty attributes."""
    node = written.field(4, "Conv") + b"\x2a\x00" * 4_800_000
    graph = written.field(7, written.field(1, node))
    path = folder / "x.onnx"
    path.write_bytes(written.field(1, 8) + graph + written.field(8, written.field(2, 17)))
    return path


def _keras(folder, config=b"{}", metadata=b"{}"):
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["vars/0"] = np.zeros(3, "f4")
    path = folder / "x.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("config.json", config)
        archive.writestr("metadata.json", metadata)
        archive.writestr("model.weights.h5", weights.getvalue())
    return path


def keras_config(folder):
    """A config of very many empty objects, far apart, as those of long texts are."""
    return _keras(folder, config=b"[" + b"{},     " * 1_000_000 + b"1]")


def keras_metadata(folder):
    """Metadata of very many empty lists."""
    return _keras(folder, metadata=b"[" + b"[]," * 5_000_000 + b"1]")


def hdf5_names(folder):
    """Very many names of one dataset, below groups of long names."""
    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        group = file
        for _ in range(40):
            group = group.create_group("g" * 1000)
        dataset = group.create_dataset("d", data=np.zeros(1, "f4"))
        for number in range(10_000):
            group[f"_{number:x}"] = dataset
    return path


def hdf5_chunks(folder):
    """A dataset in very many chunks."""
    path = folder / "x.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("x", (20_000,), "f4", chunks=(1,))
        for number in range(20_000):
            made.id.write_direct_chunk((number,), b"abcd")
    return path


def tensorflow_users(folder):
    """Very many ways from a node to those that use it."""
    names = [f"bn/{name}" for name in written.FOUR]
    for name, data in written.bundle({name: np.ones(4, "f4") for name in names}).items():
        (folder / name).write_bytes(data)
    nodes = [
        written.node("v/a", "Rsqrt", ["add"]),
        written.node("add", "AddV2", ["bn/moving_variance/read", "eps"]),
        written.node("eps", "Const", [], value=("tensor", 0.001)),
        *written.reads("bn/moving_variance"),
    ]
    before = ["v/a"]
    for layer in range(6):
        own = [f"i{layer}_{number}" for number in range(50)]
        nodes += [written.node(name, "Identity", before) for name in own]
        before = own
    (folder / "model.meta").write_bytes(written.meta_graph(nodes))
    return folder / "model.index"


def _packed_text(text):
    return b"\xda" + struct.pack(">H", len(text)) + text.encode()


def flax_names(folder):
    """Very many arrays below one long name."""
    array = b"\x93\x91\x01\xa7float32\xc4\x04" + bytes(4)
    one = b"\xc7" + bytes([len(array)]) + b"\x01" + array
    arrays = b"".join(b"\xa5%05x" % number + one for number in range(100_000))
    path = folder / "x.msgpack"
    inner = b"\xdf" + struct.pack(">I", 100_000) + arrays
    path.write_bytes(b"\x82\xa1x" + one + _packed_text("a" * 4000) + inner)
    return path


def archive_names(folder):
    """A member of a very long name with very many tensors."""
    many = {
        f"{number:x}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * number, 4 * number + 4]}
        for number in range(20_000)
    }
    header = json.dumps(many, separators=(",", ":")).encode()
    path = folder / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        data = struct.pack("<Q", len(header)) + header + bytes(80_000)
        archive.writestr("n" * 60_000 + ".safetensors", data)
    return path


def mxnet_symbol(folder):
    """A graph of very many empty objects beside the parameters."""
    path = folder / "x-0000.params"
    path.write_bytes(mxnet_files.saved(mxnet_files.model()))
    data = b'{"x":[' + b"{},             " * 900_000 + b'1],"nodes":[]}'
    (folder / "x-symbol.json").write_bytes(data)
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's account of memory")
@pytest.mark.parametrize(
    "write",
    [
        onnx_attributes,
        keras_config,
        keras_metadata,
        hdf5_names,
        hdf5_chunks,
        tensorflow_users,
        flax_names,
        archive_names,
        mxnet_symbol,
    ],
)
def test_a_grown_file_takes_little_memory_and_time(write, tmp_path):
    command = [sys.executable, "-c", CHILD, str(write(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *_, megabytes, seconds = done.stdout.split()
    assert int(megabytes) < MOST_MEGABYTES
    assert float(seconds) < MOST_SECONDS
