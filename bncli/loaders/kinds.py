"""The kinds of files that arrive and are not read, each with what to do about it."""

from __future__ import annotations

from collections.abc import Callable

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.light import dataclass
from bncli.loaders import compression, probes
from bncli.loaders.interface import Source
from bncli.loaders.names import listed
from bncli.loaders.nested import has_member
from bncli.loaders.probes import begins, beside, is_xml, named
from bncli.loaders.registry import CHECKPOINTS, READ

AS_NPZ = "save the weights with np.savez under PyTorch's names (LAYER.weight, LAYER.running_mean)"
"""What helps with other libraries' weights: their own names would not be found as BatchNorm's."""
LOAD_IT = f"load it where it was made, and {AS_NPZ}."
AS_FLAT_NPZ = (
    "save its arrays with np.savez under their names joined by '/' (batch_stats/LAYER/mean,"
    " params/LAYER/scale)."
)
"""What helps with the trees of JAX's libraries, whose names are found."""
MADE_FROM = "name the checkpoint that it was made from."
FOLDED = f"whose converter usually folds BatchNorm into the convolutions; {MADE_FROM}"
NO_WEIGHTS = f"bncli reads {READ}; name the file with the weights."


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file, told by its content, and the sentence for it."""

    looks: Callable[[Source], bool]
    sentence: str | Callable[[Source], str]
    error: type[FileError] = UnsupportedFileError

    def refusal(self, source: Source) -> FileError:
        """The error that says what kind of file it is."""
        said = self.sentence
        return self.error(source.path, said if isinstance(said, str) else said(source))


def _is_archive(*ends: str) -> Callable[[Source], bool]:
    """Whether the file is a ZIP archive, with one of these members if any are named."""
    return lambda source: (
        source.archive is not None and (not ends or has_member(source.archive, *ends))
    )


def _zip_sentence(source: Source) -> str:
    names = source.archive.members if source.archive is not None else ()
    likely = [name for name in names if name.endswith(CHECKPOINTS)]
    which = listed(likely, " or ") if likely else "a file in it"
    return (
        "it is a ZIP archive without a file that bncli reads inside an archive; unzip it and name"
        f" {which}."
    )


COMMANDS = {"gzip": "gunzip", "bzip2": "bunzip2", "xz": "unxz", "lzma": "unlzma", "zstd": "unzstd"}


def _packed_sentence(source: Source) -> str:
    how, inside = compression.compression(source)
    if probes.is_pickle(inside):
        return (
            f"it is a Python pickle compressed by {how}, as joblib.dump writes with compress; load"
            f" it where it was made, and {AS_NPZ}."
        )
    if probes.is_tar_header(inside):
        return (
            f"it is a tar archive compressed by {how}; unpack it (tar -xf) and name a file in it."
        )
    command = f" ({COMMANDS[how]})" if how in COMMANDS else ""
    return f"it is a file compressed by {how}; decompress it{command} and name what comes out."


_FRAMEWORKS = (
    Kind(
        begins(b"MATLAB 7.3 MAT-file"),
        f"it is a MATLAB file of version 7.3; load it (h5py), and {AS_NPZ}.",
    ),
    Kind(
        begins(b"MATLAB 5.0 MAT-file", b"MATLAB 7.0 MAT-file"),
        f"it is a MATLAB file; load it (scipy.io.loadmat), and {AS_NPZ}.",
    ),
    Kind(
        probes.is_matlab4,
        f"it is a MATLAB file of version 4; load it (scipy.io.loadmat), and {AS_NPZ}.",
    ),
    Kind(begins(b"CDF\x01", b"CDF\x02", b"CDF\x05"), f"it is a NetCDF file; {LOAD_IT}"),
    Kind(
        begins(b"ORTM", at=4), "it is an ONNX Runtime model; name the .onnx that it was made from."
    ),
    Kind(
        probes.is_tensorflow_data,
        "it is a data file of a TensorFlow checkpoint, whose index is missing; put the .index file"
        " of the same name beside it.",
    ),
    Kind(
        probes.is_tensorflow_meta,
        "it is the graph of a TensorFlow checkpoint, whose index is missing; put the .index file of"
        " the same name beside it.",
    ),
    Kind(
        probes.is_cut_tensorflow_index,
        "it begins as the index of a TensorFlow checkpoint, but does not end as one; it is cut"
        " short or damaged, so download or copy it again.",
        CorruptFileError,
    ),
    Kind(
        lambda source: b"brain.Event:" in source.head[:64],
        "it is a TensorFlow event log, which holds no weights; name the checkpoint.",
    ),
    Kind(probes.is_core_ml, f"it is a Core ML model, {FOLDED}"),
    Kind(
        probes.is_caffe,
        f"it is a Caffe model; load it where it was made, divide the first two blobs of a BatchNorm"
        f" by its third, and {AS_NPZ}.",
    ),
    Kind(
        probes.is_protobuf_list,
        "it is a list of protobuf messages, as MindSpore's checkpoints and TensorFlow's frozen"
        f" graphs are; name the model that a graph was frozen from, or load it, and {AS_NPZ}.",
    ),
    Kind(begins(b"TFL3", at=4), f"it is a TensorFlow Lite model, {FOLDED}"),
    Kind(begins(b"ET12", b"ET13", at=4), f"it is an ExecuTorch program; {MADE_FROM}"),
    Kind(
        begins(b"ftrt", b"ptrt"),
        f"it is a TensorRT engine, which is compiled for one kind of GPU; {MADE_FROM}",
    ),
    Kind(begins(b"GGUF", b"lmgg", b"fmgg", b"tjgg"), f"it is a GGUF or GGML file; {MADE_FROM}"),
    Kind(
        probes.is_paddle_stream,
        "it is a .pdiparams of PaddlePaddle, in which arrays have no names; name the .pdparams that"
        " the model was made from.",
    ),
    Kind(begins(b"7767517\n"), f"it is the graph of an ncnn model; {MADE_FROM}"),
    Kind(beside(".param", b"7767517\n"), f"it holds the weights of an ncnn model; {MADE_FROM}"),
    Kind(is_xml(b"<net "), f"it is the graph of an OpenVINO model, {FOLDED}"),
    Kind(beside(".xml", b"<net "), f"it holds the weights of an OpenVINO model, {FOLDED}"),
    Kind(probes.is_tensorflow_js, f"it is a part of a TensorFlow.js model; {MADE_FROM}"),
    Kind(is_xml(b"<PMML"), f"it is a PMML model; {MADE_FROM}"),
    Kind(
        begins(b"\x0c\xdb\x3a\x2a"),
        f"it is part of an OCDBT store, as Orbax writes; restore it with Orbax, and {AS_FLAT_NPZ}",
    ),
    Kind(
        probes.is_darknet,
        "it is a Darknet weights file, in which arrays have no names; load it with its .cfg, and"
        f" {AS_NPZ}.",
    ),
    Kind(named(".mnn"), f"its name says that it is an MNN model; {MADE_FROM}"),
    Kind(named(".nb"), f"its name says that it is a Paddle Lite model; {MADE_FROM}"),
)

_DATA = (
    Kind(begins(b"PAR1", b"PARE"), f"it is a Parquet table; {NO_WEIGHTS}"),
    Kind(begins(b"ARROW1", b"FEA1"), f"it is an Arrow table; {NO_WEIGHTS}"),
    Kind(begins(b"SQLite format 3\0"), f"it is an SQLite database; {NO_WEIGHTS}"),
    Kind(begins(b"Obj\x01"), f"it is an Avro file; {NO_WEIGHTS}"),
    Kind(begins(b"RDX2\n", b"RDX3\n", b"RDA2\n"), f"it is an R data file; {LOAD_IT}"),
    Kind(
        begins(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF-", b"II*\0", b"MM\0*", b"%!PS"),
        f"it is an image or a document; {NO_WEIGHTS}",
    ),
    Kind(
        begins(b"RIFF", b"OggS\0", b"fLaC", b"ID3\3\0", b"ID3\4\0", b"\x1a\x45\xdf\xa3"),
        f"it is an image, audio or video file; {NO_WEIGHTS}",
    ),
    Kind(begins(b"ftyp", at=4), f"it is an image, audio or video file; {NO_WEIGHTS}"),
    Kind(probes.is_program, f"it is a program or a library; {NO_WEIGHTS}"),
    Kind(
        begins(b"\0\x05\x16\x07", b"\0\x05\x16\0"),
        "it is macOS metadata of another file; name the file without the leading ._ in its name.",
    ),
)

KINDS = (
    Kind(
        lambda source: source.size == 0,
        "it is empty; download or copy it again.",
        CorruptFileError,
    ),
    Kind(
        begins(b"version https://git-lfs"),
        "it is a git-lfs pointer, not the file itself; run git lfs pull.",
    ),
    Kind(
        probes.is_html,
        "it is an HTML page, not a checkpoint; the download returned a web page, so use the"
        " direct link.",
    ),
    Kind(
        lambda source: source.is_statistics,
        "it holds the statistics of a model's layers or of a tensor, not their values; read it with"
        " bncli diagnose, bncli compute or bncli simulate-ema.",
    ),
    *_FRAMEWORKS,
    Kind(
        probes.is_torch_tar,
        "it is a tar file of PyTorch before 0.2; load it with an old PyTorch and save it again with"
        " torch.save.",
    ),
    Kind(probes.is_tar, "it is a tar archive; unpack it and name a file in it."),
    Kind(lambda source: bool(compression.compression(source)[0]), _packed_sentence),
    Kind(
        _is_archive("model.json"),
        "it is a TorchScript archive of PyTorch before 1.1; load it with torch.jit.load and save"
        " its state_dict with torch.save.",
    ),
    Kind(_is_archive(), _zip_sentence),
    *_DATA,
    Kind(
        probes.is_blank,
        "its first and last bytes are all 0; it was not written completely, or its contents"
        " were lost, so download or copy it again.",
        CorruptFileError,
    ),
)
"""What arrives in practice, in the order in which it is asked."""
