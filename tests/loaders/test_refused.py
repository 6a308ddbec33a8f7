"""Every kind of file that is not read: what it is, and what to do, in one sentence."""

import io
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch

from bncli.errors import BncliError, CorruptFileError, ExitCode, FileError, UnsupportedFileError
from bncli.loaders import open_file, open_layer, open_tensor

from .files import saved, values
from .pickles import name, whole, zipped

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
        b"\x89HDF\r\n\x1a\n" + bytes(100),
        (
            f"it is an HDF5 file, as Keras saves; {READ}, so save the weights with np.savez under"
            " PyTorch's names (LAYER.weight, LAYER.running_mean)."
        ),
    ),
    "hdf5-user-block": (bytes(512) + b"\x89HDF\r\n\x1a\n" + bytes(9), "it is an HDF5 file, as"),
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
    "pickle-0-object": (pickle.dumps(Fake(1), 0), "it is a plain Python pickle, not a file of"),
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
    "gzip": (b"\x1f\x8b\x08" + bytes(9), "it is a compressed file; decompress it and name what"),
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
    "gguf": (b"GGUF" + bytes(20), "it is a GGUF file of quantised weights;"),
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
        assert isinstance(caught.value, CorruptFileError) == (kind == "empty")


def test_directories(tmp_path):
    def sentence():
        with pytest.raises(UnsupportedFileError) as caught:
            open_file(tmp_path)
        return str(caught.value).removeprefix(f"{tmp_path}: ")

    assert sentence() == "it is a directory; name a file."
    for file_name in ("model.safetensors", "config.json", "model.safetensors.index.json"):
        (tmp_path / file_name).touch()
    assert sentence() == (
        "it is a directory; name a file in it (model.safetensors.index.json, model.safetensors)."
    )
    (tmp_path / ".metadata").touch()
    assert sentence().startswith("it is a directory; name a file in it")
    (tmp_path / "__0_0.distcp").touch()
    assert sentence() == (
        "it is a checkpoint of torch.distributed; make it one file (python -m"
        f" torch.distributed.checkpoint.format_utils dcp_to_torch {tmp_path.name} model.pt) and"
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
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsupportedFileError, match="a pipe or a device, not a file; save what it"):
        open_file(tmp_path / "pipe")
    with pytest.raises(UnsupportedFileError, match="a pipe or a device"):
        open_file("/dev/null")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileError, match="there is no such file"):
        open_file(tmp_path / "dangling")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
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
