"""Every kind of file that is not read: what it is, and what to do, in one sentence."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zlib

import pytest

from bncli.errors import CorruptFileError, ExitCode, FileError
from bncli.loaders import open_file, open_layer, open_tensor
from bncli.loaders.interface import open_source
from bncli.loaders.kinds import KINDS

from .pickles import NONE, whole, zipped
from .test_refused import joblib_dump


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


HDF5 = b"\x89HDF\r\n\x1a\n"
PACKED = "it is a Python pickle compressed by"
UNZIP = "it is a ZIP archive without a file that bncli reads inside an archive; unzip it and name"
FOLDED = (
    "whose converter usually folds BatchNorm into the convolutions; name the checkpoint that it was"
    " made from."
)
OPENVINO = b'<?xml version="1.0"?>\n<net name="m" version="11">\n\t<layers>\n\t\t<layer id="0"'

REFUSED = {
    "git-lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "it is a git-lfs pointer, not the file itself; run git lfs pull.",
    ),
    "html": (
        b"\n <!DOCTYPE html><html><body>Not found",
        (
            "it is an HTML page, not a checkpoint; the download returned a web page, so use"
            " the direct link."
        ),
    ),
    "xhtml": (b"<?xml version='1.0'?><html>", "it is an HTML page, not a checkpoint; the download"),
    "empty": (b"", "it is empty; download or copy it again."),
    "matlab-7.3": (
        b"MATLAB 7.3 MAT-file".ljust(512) + HDF5,
        "it is a MATLAB file of ver",
    ),
    "matlab-5": (
        b"MATLAB 5.0 MAT-file Platform: posix".ljust(128),
        "it is a MATLAB file; load",
    ),
    "matlab-4": (
        struct.pack("<5i", 0, 1, 1, 0, 2) + b"w\0" + bytes(8),
        "it is a MATLAB file of ve",
    ),
    "matlab-4-big": (
        struct.pack(">5i", 1000, 1, 1, 0, 2) + b"w\0" + bytes(8),
        "it is a MATLAB fil",
    ),
    "netcdf": (b"CDF\x01" + bytes(20), "it is a NetCDF file;"),
    "joblib-gzip": (gzip.compress(joblib_dump()), f"{PACKED} gzip, as joblib.dump writes with"),
    "joblib-zlib": (zlib.compress(joblib_dump()), f"{PACKED} zlib, as joblib.dump"),
    "joblib-bz2": (bz2.compress(joblib_dump()), f"{PACKED} bzip2, as joblib.dump"),
    "joblib-xz": (lzma.compress(joblib_dump()), f"{PACKED} xz, as joblib.dump"),
    "joblib-lzma": (
        lzma.compress(joblib_dump(), lzma.FORMAT_ALONE),
        f"{PACKED} lzma, as joblib.dump",
    ),
    "lost.ckpt.meta": (
        field(1, field(4, b"serve")) + field(2, field(1, field(1, b"x"))),
        "it is the graph of a TensorFlow checkpoint, whose index is missing; put the .index file",
    ),
    "cut.ckpt.index": (
        b"\0\0\6" + field(1, 1) + field(3, field(1, 1)) + b"\0\x08\x10bn/gamma",
        "it begins as the index of a TensorFlow checkpoint, but does not end as one; it is cut",
    ),
    "model.ckpt.data-00000-of-00001": (
        bytes(64),
        "it is a data file of a TensorFlow checkpoint, whose index is missing; put the .index file",
    ),
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
        f"{UNZIP} a file in it.",
    ),
    "old-torchscript": (
        zipped({"m/model.json": b"{}", "m/version": b"1"}),
        (
            "it is a TorchScript archive of PyTorch before 1.1; load it with torch.jit.load and"
            " save its state_dict with torch.save."
        ),
    ),
    "ncnn": (b"7767517\n75 83\n", "it is the graph of an ncnn model; name the checkpoint"),
    "avro": (b"Obj\x01" + bytes(20), "it is an Avro file;"),
    "r": (b"RDX3\nX\n", "it is an R data file;"),
    "mp4": (b"\0\0\0\x20ftypisom", "it is an image, audio or video file;"),
    "gguf": (b"GGUF" + bytes(20), "it is a GGUF or GGML file;"),
    "ggml": (b"lmgg" + bytes(20), "it is a GGUF or GGML file;"),
    "ort": (bytes(4) + b"ORTM" + bytes(20), "it is an ONNX Runtime model;"),
    "executorch": (bytes(4) + b"ET12" + bytes(20), "it is an ExecuTorch program;"),
    "tensorrt": (
        b"ftrt" + bytes(20),
        "it is a TensorRT engine, which is compiled",
    ),
    "model.pdiparams": (
        bytes(16) + b"\x04\0\0\0\x08\x05\x10\x02" + bytes(8),
        "it is a .pdiparams of PaddlePaddle, in which arrays have no names; name the .pdparams tha",
    ),
    "yolo.weights": (struct.pack("<3iq", 0, 2, 5, 9), "it is a Darknet weights file, in which"),
    "events": (
        struct.pack("<QI", 9, 0) + b"\x09\0\0\x1a\x0dbrain.Event:2",
        "it is a TensorFlow ev",
    ),
    "core-ml": (
        field(1, 4) + field(2, b"x") + b"\xa2\x1f\x01x",
        f"it is a Core ML model, {FOLDED}",
    ),
    "x.caffemodel": (field(1, b"net") + b"\xa2\x06\x01x", "it is a Caffe model;"),
    "mindspore": (
        field(1, field(1, b"bn.gamma") + field(2, b"x")) * 2000,
        "it is a list of protobuf messages, as MindSpore's checkpoints and TensorFlow's frozen",
    ),
    "parquet": (b"PAR1" + bytes(20), "it is a Parquet table;"),
    "arrow": (b"ARROW1\0\0" + bytes(20), "it is an Arrow table;"),
    "sqlite": (b"SQLite format 3\0" + bytes(20), "it is an SQLite database;"),
    "elf": (b"\x7fELF\2\1\1" + bytes(20), "it is a program or a library;"),
    "wav": (b"RIFF" + bytes(20), "it is an image, audio or video file;"),
    "pdf": (b"%PDF-1.7", "it is an image or a document;"),
    "apple-double": (b"\0\x05\x16\x07" + bytes(20), "it is macOS metadata of another file; name"),
    "blank": (bytes(9999), "its first and last bytes are all 0; it was not written completely,"),
    "zip-of-checkpoints": (
        zipped({"policy.pth": whole(NONE), "data": b""}),
        f"{UNZIP} policy.pth.",
    ),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(20), f"it is a TensorFlow Lite model, {FOLDED}"),
    "model.xml": (OPENVINO, f"it is the graph of an OpenVINO model, {FOLDED}"),
    "model.json": (
        b'{"format": "layers-model", "modelTopology": {}, "weightsManifest": [{"paths": []}]}',
        "it is a part of a TensorFlow.js model; name the checkpoint that it was made from.",
    ),
    "group1-shard1of2.bin": (b"\1\2\xff", "it is a part of a TensorFlow.js model;"),
    "pmml": (b'<?xml version="1.0"?>\n<PMML version="4.4">', "it is a PMML model; name"),
    "manifest.ocdbt": (b"\x0c\xdb\x3a\x2a" + bytes(9), "it is part of an OCDBT store, as Orbax"),
    "net.mnn": (b"\1\2\xff", "its name says that it is an MNN model; name the checkpoint that"),
    "net.nb": (b"\2\0v2.10", "its name says that it is a Paddle Lite model; name the checkpoint"),
    "png": (b"\x89PNG\r\n\x1a\n", "it is an image or a document;"),
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
        assert isinstance(caught.value, CorruptFileError) == (
            kind in {"empty", "blank", "cut.ckpt.index"}
        )


BESIDE = {
    "ncnn": ("param", b"7767517\n75 83\n", "it holds the weights of an ncnn model; name the"),
    "openvino": ("xml", OPENVINO, f"it holds the weights of an OpenVINO model, {FOLDED}"),
}


@pytest.mark.parametrize("kind", BESIDE)
def test_weights_that_are_told_by_the_graph_beside_them(kind, tmp_path):
    suffix, graph, sentence = BESIDE[kind]
    (tmp_path / "m.bin").write_bytes(b"\1\2\xff")
    for data, said in ((b"else", "its format is not known"), (graph, sentence)):
        (tmp_path / f"m.{suffix}").write_bytes(data)
        with pytest.raises(FileError) as caught:
            open_file(tmp_path / "m.bin")
        assert str(caught.value).startswith(f"{tmp_path / 'm.bin'}: {said}")


def test_every_kind_has_a_sample(tmp_path):
    """No kind stands behind another that takes all its files."""
    met = set()
    statistics = {"statistics": (zipped({"bncli.json": b"{}"}), "")}  # --state reads its layers
    for name, (data, _) in (REFUSED | statistics).items():
        path = tmp_path / name
        path.write_bytes(data)
        with open_source(path) as source:
            met.add(next(number for number, kind in enumerate(KINDS) if kind.looks(source)))
    (tmp_path / "m.bin").write_bytes(b"\1\2\xff")
    for suffix, graph, _ in BESIDE.values():
        (tmp_path / f"m.{suffix}").write_bytes(graph)
        with open_source(tmp_path / "m.bin") as source:
            met.add(next(number for number, kind in enumerate(KINDS) if kind.looks(source)))
        (tmp_path / f"m.{suffix}").unlink()
    lacking = [kind.sentence for number, kind in enumerate(KINDS) if number not in met]
    assert not lacking, lacking
