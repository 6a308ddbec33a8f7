"""Every kind of file that is not read: what it is, and what to do, in one sentence."""

import bz2
import gzip
import io
import lzma
import os
import pickle
import struct
import tarfile
import zlib

import numpy as np
import pytest
import torch

from bncli.errors import BncliError, CorruptFileError, ExitCode, FileError, UnsupportedFileError
from bncli.loaders import open_file, open_layer, open_tensor

from .files import saved, values
from .pickles import NONE, PROTO, call, dictionary, name, text, whole, zipped

READ = "bncli reads PyTorch, safetensors and NumPy files"


def tar(*members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for member in members:
            info = tarfile.TarInfo(member)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    return out.getvalue()


def field(number, data):
    """One protobuf field: a number or bytes."""
    if isinstance(data, int):
        return bytes([number << 3, data])
    return bytes([number << 3 | 2, len(data)]) + data


class Fake:
    def __init__(self, value):
        self.value = value


class Paired:
    """As newer versions of Paddle pickle a parameter."""

    def __reduce__(self):
        return tuple, (("linear_0.w_0", np.zeros(2)),)


def joblib_dump():
    """An array of joblib: a wrapper in the pickle, and its bytes behind it, between the opcodes."""
    return (
        PROTO
        + b"}"
        + text("w")
        + name("joblib.numpy_pickle", "NumpyArrayWrapper")
        + b")\x81"
        + dictionary(subclass=NONE)
        + b"b"
        + b"\x03\xff\xff\xff"
        + np.ones(9).tobytes()
        + b"s."
    )


HDF5 = b"\x89HDF\r\n\x1a\n"
PACKED = "it is a Python pickle compressed by"
ONNX = (
    field(1, 8)
    + field(2, b"pytorch")
    + field(3, b"2.0")
    + field(7, b"graph")
    + field(8, b"\x10\x11")
)
PADDLE = {"w": np.zeros(2), "StructuredToParameterName@@": {"w": "linear_0.w_0"}}

REFUSED = {
    "git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "it is a git-lfs pointer, not the file itself; run git lfs pull.",
    ),
    "html": (
        b"\n <!DOCTYPE html><html><body>Not found",
        (
            "it is an HTML page, not a checkpoint; the download gave a web page, so download it"
            " from the direct link."
        ),
    ),
    "xhtml": (b"<?xml version='1.0'?><html>", "it is an HTML page, not a checkpoint; the download"),
    "empty": (b"", "it is empty; download or copy it again."),
    "hdf5": (
        HDF5 + bytes(100),
        (
            f"it is an HDF5 file; {READ}, so save the weights with np.savez under"
            " PyTorch's names (LAYER.weight, LAYER.running_mean)."
        ),
    ),
    "hdf5-user-block": (bytes(512) + HDF5 + bytes(9), f"it is an HDF5 file; {READ}, so save"),
    "hdf5-keras": (HDF5 + bytes(99) + b"keras_version", f"it is an HDF5 file of Keras; {READ}"),
    "matlab-7.3": (b"MATLAB 7.3 MAT-file".ljust(512) + HDF5, f"it is a MATLAB file; {READ}, so"),
    "matlab-5": (b"MATLAB 5.0 MAT-file Platform: posix".ljust(128), "it is a MATLAB file; bncli"),
    "matlab-4": (
        struct.pack("<5i", 0, 1, 1, 0, 2) + b"w\0" + bytes(8),
        "it is a MATLAB file of ve",
    ),
    "matlab-4-big": (
        struct.pack(">5i", 1000, 1, 1, 0, 2) + b"w\0" + bytes(8),
        "it is a MATLAB fil",
    ),
    "netcdf": (b"CDF\x01" + bytes(20), "it is a NetCDF file;"),
    "keras": (
        zipped({"metadata.json": b"{}", "model.weights.h5": b""}),
        f"it is a Keras archive; {READ}, so save the weights with np.savez under PyTorch's names",
    ),
    "onnx": (
        ONNX,
        f"it is an ONNX model; {READ}, so name the checkpoint that it was made from.",
    ),
    "paddle": (
        pickle.dumps(PADDLE, 2),
        "it is a PaddlePaddle pickle; save the weights with np.savez under PyTorch's names",
    ),
    "paddle-newer": (pickle.dumps({"w": Paired()}, 4), "it is a PaddlePaddle pickle; save the"),
    "pickle": (
        pickle.dumps({"a": 1}),
        (
            "it is a plain Python pickle, not a file of torch.save; load it where it was made and"
            " save its tensors with torch.save or np.savez."
        ),
    ),
    "pickle-0": (pickle.dumps({"a": 1}, 0), "it is a plain Python pickle, not a file of torch."),
    "pickle-1": (pickle.dumps({"a": 1}, 1), "it is a plain Python pickle, not a file of torch."),
    "pickle-0-list": (pickle.dumps(["a"], 0), "it is a plain Python pickle, not a file of torch."),
    "pickle-0-object": (
        pickle.dumps(Fake(1), 0),
        f"it is a plain Python pickle of {Fake.__module__}.Fake, not a file of torch.save;",
    ),
    "pickle-object": (
        pickle.dumps(Fake([1])),
        f"it is a plain Python pickle of {Fake.__module__}.Fake, not a file of torch.save;",
    ),
    "pickle-of-a-call": (
        whole(dictionary(a=call(name("posix", "system"), text("true")))),
        "it is a Python pickle that calls posix.system when it is loaded,",
    ),
    "pickle-of-a-builtin": (
        whole(call(name("__builtin__", "eval"), text("1"))),
        "it is a Python pickle that calls __builtin__.eval when it is loaded,",
    ),
    "distributed-table": (
        whole(name("torch.distributed.checkpoint.metadata", "Metadata") + b")\x81}b"),
        "it is the table of a checkpoint of torch.distributed; make the folder one file (python -m",
    ),
    "joblib": (
        joblib_dump(),
        "it is a file of joblib.dump; load it where it was made, and save the weights with np.sav",
    ),
    "joblib-gzip": (gzip.compress(joblib_dump()), f"{PACKED} gzip, as joblib.dump writes with"),
    "joblib-zlib": (zlib.compress(joblib_dump()), f"{PACKED} zlib, as joblib.dump"),
    "joblib-bz2": (bz2.compress(joblib_dump()), f"{PACKED} bzip2, as joblib.dump"),
    "joblib-xz": (lzma.compress(joblib_dump()), f"{PACKED} xz, as joblib.dump"),
    "joblib-lzma": (
        lzma.compress(joblib_dump(), lzma.FORMAT_ALONE),
        f"{PACKED} lzma, as joblib.dump",
    ),
    "tensorflow-index": (
        bytes(40) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb",
        f"it is a TensorFlow checkpoint; {READ}, so save the weights with np.savez under",
    ),
    "model.ckpt.data-00000-of-00001": (bytes(64), "it is a TensorFlow checkpoint;"),
    "checkpoint": (b'model_checkpoint_path: "model.ckpt"\n', "it is a TensorFlow checkpoint;"),
    "torch-tar": (
        tar("sys_info", "pickle", "storages", "tensors"),
        (
            "it is a tar file of PyTorch before 0.2; load it with an old PyTorch and save it again"
            " with torch.save."
        ),
    ),
    "tar": (tar("model.pt"), "it is a tar archive; unpack it and name a file in it."),
    "gzip": (
        gzip.compress(b"hello"),
        "it is a file compressed by gzip; decompress it (gunzip) and name what comes out.",
    ),
    "gzip-cut": (b"\x1f\x8b\x08" + bytes(9), "it is a file compressed by gzip; decompress it (gun"),
    "tar-gz": (
        gzip.compress(tar("model.pt")),
        "it is a tar archive compressed by gzip; unpack it (tar -xf) and name a file in it.",
    ),
    "zstd": (b"\x28\xb5\x2f\xfd" + bytes(9), "it is a file compressed by zstd; decompress it (unz"),
    "7z": (b"7z\xbc\xaf\x27\x1c" + bytes(9), "it is a file compressed by 7-Zip; decompress it and"),
    "zip": (
        zipped({"readme.txt": b"x"}),
        "it is a ZIP archive, but of neither PyTorch nor NumPy; unzip it and name a file in it.",
    ),
    "old-torchscript": (
        zipped({"m/model.json": b"{}", "m/version": b"1"}),
        (
            "it is a TorchScript archive of PyTorch before 1.1; load it with torch.jit.load and"
            " save its state_dict with torch.save."
        ),
    ),
    "torch-export": (
        zipped({"m/archive_format": b"pt2", "m/models/model.json": b"{}"}),
        "it is a torch.export program; save its state_dict with torch.save and name that.",
    ),
    "gguf": (b"GGUF" + bytes(20), "it is a GGUF or GGML file;"),
    "ggml": (b"lmgg" + bytes(20), "it is a GGUF or GGML file;"),
    "ort": (bytes(4) + b"ORTM" + bytes(20), "it is an ONNX Runtime model;"),
    "executorch": (bytes(4) + b"ET12" + bytes(20), "it is an ExecuTorch program;"),
    "tensorrt": (b"ftrt" + bytes(20), "it is a TensorRT engine;"),
    "mxnet": (struct.pack("<3Q", 0x112, 0, 1), "it is a file of MXNet's arrays;"),
    "yolo.weights": (struct.pack("<3iq", 0, 2, 5, 9), "it is a file of Darknet's weights;"),
    "msgpack": (
        b"\x82\xa6params\x80\xabbatch_stats\x80",
        "it is a table of MessagePack, as Flax saves; save its arrays with np.savez under their",
    ),
    "events": (
        struct.pack("<QI", 9, 0) + b"\x09\0\0\x1a\x0dbrain.Event:2",
        "it is a TensorFlow ev",
    ),
    "saved_model.pb": (
        field(1, 1) + field(2, b"graph"),
        "it is the graph of a TensorFlow SavedMod",
    ),
    "core-ml": (field(1, 4) + field(2, b"x") + b"\xa2\x1f\x01x", "it is a Core ML model;"),
    "x.caffemodel": (field(1, b"net") + b"\xa2\x06\x01x", "it is a Caffe model;"),
    "mindspore": (
        field(1, field(1, b"bn.gamma") + field(2, b"x")) * 2000,
        "it is a list of protobuf messages, as MindSpore's checkpoints and TensorFlow's frozen",
    ),
    "parquet": (b"PAR1" + bytes(20), "it is a Parquet table;"),
    "arrow": (b"ARROW1\0\0" + bytes(20), "it is an Arrow table;"),
    "sqlite": (b"SQLite format 3\0" + bytes(20), "it is an SQLite database;"),
    "elf": (b"\x7fELF\2\1\1" + bytes(20), "it is a program or a library;"),
    "wav": (b"RIFF" + bytes(20), "it is a picture, a sound or a film;"),
    "pdf": (b"%PDF-1.7", "it is a picture or a document;"),
    "apple-double": (b"\0\x05\x16\x07" + bytes(20), "it is what macOS keeps beside a file; name"),
    "blank": (bytes(9999), "its first and last bytes are all 0; it was never written to the end,"),
    "text-utf-16": ("Not Found".encode("utf-16"), "it is text that begins with 'Not Found'; down"),
    "zip-of-checkpoints": (
        zipped({"policy.pth": whole(NONE), "data": b""}),
        "it is a ZIP archive, but of neither PyTorch nor NumPy; unzip it and name policy.pth.",
    ),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(20), "it is a TensorFlow Lite model;"),
    "png": (b"\x89PNG\r\n\x1a\n", "it is a picture or a document;"),
    "json": (b'{"error": 1}', "it is text that begins with '{\"error\": 1}'; download it again"),
    "text": (
        b"Not Found",
        (
            "it is text that begins with 'Not Found'; download it again where that is an answer of"
            " the server, and else name the file with the weights."
        ),
    ),
    "text-bom-cut": (
        ("\ufeff" + "\u00e9 \n" * 3000).encode(),
        "it is text that begins with '\u00e9 \u00e9",
    ),
    "xml": (
        b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>',
        'it is text that begins with \'<?xml version="1.0"?> <Error><Code>AccessDenied</Code>',
    ),
    "text-with-escapes": (b"a\x1b[31m", "its format is not known (it begins with 61 1b 5b 33 31"),
    "abc": (b"\1\2\xff", f"its format is not known (it begins with 01 02 ff); {READ}."),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_it_really_is_and_what_to_do(kind, tmp_path):
    data, sentence = REFUSED[kind]
    path = tmp_path / kind
    path.write_bytes(data)
    for opener in (open_file, lambda p: open_tensor(str(p)), lambda p: open_layer(str(p))):
        with pytest.raises(FileError) as caught:
            opener(path)
        assert str(caught.value).startswith(f"{path}: {sentence}")
        assert caught.value.exit_code == ExitCode.ERROR
        assert isinstance(caught.value, CorruptFileError) == (kind in {"empty", "blank"})


def test_directories(tmp_path):
    def sentence():
        with pytest.raises(UnsupportedFileError) as caught:
            open_file(tmp_path)
        return str(caught.value).removeprefix(f"{tmp_path}: ")

    nothing = "it is a directory without a checkpoint in it; name a file, or a folder below."
    assert sentence() == nothing
    for file_name in ("a.safetensors", "config.json", "b.pt"):
        (tmp_path / file_name).touch()
    several = "it is a directory with several models; name one of them (a.safetensors, b.pt)."
    assert sentence() == several
    (tmp_path / ".metadata").touch()
    assert sentence() == several
    (tmp_path / "__0_0.distcp").touch()
    assert sentence() == (
        "it is a checkpoint of torch.distributed; make the folder one file (python -m"
        f" torch.distributed.checkpoint.format_utils dcp_to_torch {tmp_path} model.pt) and"
        " name that."
    )
    (tmp_path / ".metadata").unlink()
    (tmp_path / "data.pkl").touch()
    (tmp_path / "version").touch()
    assert sentence().startswith("it is an unpacked PyTorch archive; put it back together (zip -0")
    (tmp_path / "saved_model.pb").touch()
    assert sentence().startswith("it is a TensorFlow SavedModel;")


def test_what_is_no_file(tmp_path):
    with pytest.raises(FileError, match=r"there is no such file\.$"):
        open_file(tmp_path / "absent")
    (tmp_path / "x").touch()
    with pytest.raises(FileError, match=r"cannot be read \(not a directory\)"):
        open_file(tmp_path / "x" / "y")
    with pytest.raises(FileError, match=r"cannot be read \(file name too long\)"):
        open_file("x" * 5000)
    with pytest.raises(BncliError):
        open_file("a\0b")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileError, match="there is no such file"):
        open_file(tmp_path / "dangling")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_pipes_and_devices(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsupportedFileError, match="a pipe or a device, not a file; save what it"):
        open_file(tmp_path / "pipe")
    with pytest.raises(UnsupportedFileError, match="a pipe or a device"):
        open_file("/dev/null")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_may_not_be_read(tmp_path):
    path = tmp_path / "x"
    path.touch(0)
    with pytest.raises(FileError, match=r"cannot be read \(permission denied\)"):
        open_file(path)


@pytest.mark.parametrize("old", [True, False])
def test_a_cut_torch_file_says_that_it_is_cut(old, tmp_path):
    path = tmp_path / "x"
    data = saved(values(), _use_new_zipfile_serialization=not old)
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptFileError, match=r"cut short|ends before its pickle does"):
        open_file(path)


def test_a_corrupt_pickle_says_so(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(whole(name("a", "b"))[:-1] + b"\xff")
    with pytest.raises(CorruptFileError, match=r"0xff is no opcode of a pickle \(at byte 8"):
        open_file(path)


def test_torch_export_as_torch_writes_it(tmp_path):
    path = tmp_path / "x.pt2"
    program = torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    torch.export.save(program, path)
    with pytest.raises(UnsupportedFileError, match=r"it is a torch.export program"):
        open_file(path)


@pytest.mark.parametrize("tensors", [1, 3])
@pytest.mark.filterwarnings("ignore")
def test_every_file_of_a_distributed_checkpoint(tensors, tmp_path):
    """One piece of a tensor in a file makes a whole archive of it, and several make a row."""
    import torch.distributed.checkpoint as dcp

    folder = tmp_path / "step 5"
    dcp.save({f"w{n}": torch.ones(2) for n in range(tensors)}, checkpoint_id=folder)
    paths = [folder, *folder.iterdir()]
    assert {path.name for path in paths} == {"step 5", ".metadata", "__0_0.distcp"}
    for path in paths:
        with pytest.raises(UnsupportedFileError) as caught:
            open_file(path)
        assert f"dcp_to_torch '{folder}' model.pt" in str(caught.value)
    alone = (folder / "__0_0.distcp").rename(tmp_path / "alone")
    if tensors == 1:
        assert len(open_file(alone).tensors) == 1
    else:
        with pytest.raises(UnsupportedFileError, match="several ZIP archives in a row"):
            open_file(alone)
