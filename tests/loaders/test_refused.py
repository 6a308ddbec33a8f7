"""Pickles that torch.save did not write, texts, folders, and what is no file at all."""

import os
import pickle

import numpy as np
import pytest
import torch

from bncli.errors import BncliError, CorruptFileError, ExitCode, FileError, UnsupportedFileError
from bncli.loaders import open_file, open_layer, open_tensor
from bncli.loaders.patterns import expanded

from .files import saved, values
from .pickles import NONE, PROTO, call, dictionary, name, text, whole

READ = (
    "bncli reads PyTorch, safetensors, ONNX, Keras, TensorFlow, Flax, MXNet, Paddle and NumPy files"
)


class Fake:
    def __init__(self, value):
        self.value = value


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


REFUSED = {
    "arrays": (
        pickle.dumps({"a": np.zeros(2), "b": np.zeros(2)}, 4),
        "it is a Python pickle, not written by torch.save; load it where it was made",
    ),
    "pickle": (
        pickle.dumps({"a": 1}),
        (
            "it is a Python pickle, not written by torch.save; load it where it was made and"
            " save its tensors with torch.save or np.savez."
        ),
    ),
    "pickle-0": (pickle.dumps({"a": 1}, 0), "it is a Python pickle, not written by torch."),
    "pickle-1": (pickle.dumps({"a": 1}, 1), "it is a Python pickle, not written by torch."),
    "pickle-0-list": (pickle.dumps(["a"], 0), "it is a Python pickle, not written by torch."),
    "pickle-0-object": (
        pickle.dumps(Fake(1), 0),
        f"it is a Python pickle of {Fake.__module__}.Fake, not written by torch.save;",
    ),
    "pickle-object": (
        pickle.dumps(Fake([1])),
        f"it is a Python pickle of {Fake.__module__}.Fake, not written by torch.save;",
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
        "it is the index of a torch.distributed checkpoint; call it .metadata again, put it beside",
    ),
    "joblib": (
        joblib_dump(),
        "it was written by joblib.dump; load it where it was made, and save the weights with ",
    ),
    "text-utf-16": ("Not Found".encode("utf-16"), "it is text that begins with 'Not Found'; if"),
    "json": (b'{"error": 1}', "it is text that begins with '{\"error\": 1}'; if this is a server"),
    "text": (
        b"Not Found",
        (
            "it is text that begins with 'Not Found'; if this is a server's error page, download"
            " again; otherwise name a file that holds tensors."
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
        assert not isinstance(caught.value, CorruptFileError)


def test_directories(tmp_path):
    def sentence():
        with pytest.raises(UnsupportedFileError) as caught:
            open_file(tmp_path)
        return str(caught.value).removeprefix(f"{tmp_path}: ")

    nothing = "it is a directory without a checkpoint in it; name a file, or a folder inside."
    assert sentence() == nothing
    for file_name in ("a.safetensors", "config.json", "b.pt"):
        (tmp_path / file_name).touch()
    several = "it is a directory with several models; name one of them (a.safetensors, b.pt)."
    told = f" A command that takes several files takes all of them as '{tmp_path}/*.pt' "
    assert sentence() == f"{several}{told}'{tmp_path}/*.safetensors'."
    (tmp_path / ".metadata").touch()
    assert sentence().startswith(several)
    (tmp_path / "__0_0.distcp").touch()
    assert sentence() == several.replace("(a.", "(.metadata, a.")
    with pytest.raises(CorruptFileError, match="it ends before its pickle does"):
        open_file(tmp_path / "__0_0.distcp")
    (tmp_path / ".metadata").unlink()
    assert sentence() == (
        "it has parts of a torch.distributed checkpoint, whose index .metadata is missing; copy"
        " that file into it, too."
    )
    with pytest.raises(UnsupportedFileError, match=r"index \.metadata is missing beside it; copy"):
        open_file(tmp_path / "__0_0.distcp")
    (tmp_path / "__0_0.distcp").unlink()
    (tmp_path / "data.pkl").touch()
    (tmp_path / "version").touch()
    assert sentence().startswith("it is an unpacked PyTorch archive; zip it again (zip -0")


def test_the_pattern_for_a_directory_takes_all_of_its_models(tmp_path):
    for each in ("a.pt", "b.pt", "notes.txt"):
        (tmp_path / each).touch()
    with pytest.raises(UnsupportedFileError) as caught:
        open_file(tmp_path)
    pattern = str(caught.value).partition(" as '")[2].removesuffix("'.")
    assert pattern == f"{tmp_path}/*.pt"
    assert list(expanded((pattern,))) == [f"{tmp_path}/a.pt", f"{tmp_path}/b.pt"]
    odd = tmp_path / "run[1]"  # which is a pattern itself
    odd.mkdir()
    for each in ("a.pt", "b.pt"):
        (odd / each).touch()
    with pytest.raises(UnsupportedFileError, match=r"name one of them \(a\.pt, b\.pt\)\.$"):
        open_file(odd)


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
    for cut in range(len(data) // 4, len(data), 7):  # in its pickles' lines and words, and behind
        path.write_bytes(data[:cut])
        with pytest.raises(CorruptFileError, match=r"cut short|ends before its pickle does"):
            open_file(path)


def test_a_corrupt_pickle_says_so(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(whole(name("a", "b"))[:-1] + b"\xff")
    with pytest.raises(CorruptFileError, match=r"0xff is not a pickle opcode \(at byte 8"):
        open_file(path)


@pytest.mark.parametrize("tensors", [1, 3])
@pytest.mark.filterwarnings("ignore")
def test_a_file_of_a_distributed_checkpoint_under_another_name(tensors, tmp_path):
    """One piece of a tensor in a file makes a whole archive of it, and several make a row."""
    import torch.distributed.checkpoint as dcp

    folder = tmp_path / "step 5"
    dcp.save({f"w{n}": torch.ones(2) for n in range(tensors)}, checkpoint_id=folder)
    alone = (folder / "__0_0.distcp").rename(tmp_path / "alone")
    if tensors == 1:
        assert len(open_file(alone).tensors) == 1
    else:
        with pytest.raises(UnsupportedFileError, match="several ZIP archives in a row"):
            open_file(alone)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("net.py", "it is Python code, which holds no weights; name a checkpoint, or"),
        ("net-symbol.json", "it is the graph of an MXNet model; name the .params file beside it."),
    ],
)
def test_text_whose_name_says_what_it_is(tmp_path, name, sentence):
    path = tmp_path / name
    path.write_text('{"nodes": [{"op": "null", "name": "data"}]}')
    with pytest.raises(UnsupportedFileError) as caught:
        open_file(path)
    assert str(caught.value).startswith(f"{path}: {sentence}")
