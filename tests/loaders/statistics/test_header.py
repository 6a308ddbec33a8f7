"""What the header of a statistics file says, and what no header can say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bncli import __version__
from bncli.errors import CorruptFileError, UnsupportedFileError
from bncli.loaders.statistics import open_statistics, write_statistics
from bncli.loaders.statistics.fields import Fields
from bncli.loaders.statistics.header import check_version, header_of

from .captures import model_capture, odd_capture
from .test_file import with_header

OUTPUT = {"name": "0", "count": 4, "channels": 3}


def test_the_header_is_strict_json_and_says_who_wrote_it():
    header = header_of(odd_capture())
    again = json.loads(json.dumps(header, allow_nan=False))
    assert again == header
    assert (header["format_version"], header["bncli"]) == (1, __version__)
    assert header["numpy"] == np.__version__
    assert header["source"]["torch"] == {"threads": 2}


def test_what_it_says_of_a_layer():
    layer = header_of(odd_capture())["layers"][2]
    assert layer["frozen"]
    assert not layer["in_training"]
    assert layer["seen"] == ["training", "eval", "as-trained", "renewed"]
    assert layer["per_batch"] == ["training"]
    assert layer["kernel"] == {"in_channels": 3, "bias": False, "padded": True}
    assert layer["state"]["tensors"] == dict.fromkeys(
        ("weight", "bias", "running_mean", "running_var"), "float32"
    )
    assert layer["state"]["module"]["class_name"] == "BatchNorm2d"
    assert layer["state"]["num_batches_tracked"] == 2**60 + 1


def test_the_versions_that_are_read():
    check_version(Fields(Path("x.npz"), "", {"format_version": 1}))
    with pytest.raises(UnsupportedFileError, match="statistics file of format 7, and this bncli"):
        check_version(Fields(Path("x.npz"), "", {"format_version": 7}))
    with pytest.raises(CorruptFileError):
        check_version(Fields(Path("x.npz"), "", {"format_version": 0}))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("shard", [1, 1], r"shard in its bncli\.json cannot be \[1, 1\]"),
        ("shard", [0, True], "shard in its"),
        ("shard", [0], "shard in its"),
        ("fingerprint", {"weights": 3}, r"fingerprint\.weights in its"),
        ("layers", None, "layers in its"),
        ("rounds", -1, "rounds in its"),
        ("dropout", [None], "dropout in its"),
        ("outputs", [{"name": "0", "channels": 0}], r"outputs\[0\]\.channels in its"),
        ("outputs", [{**OUTPUT, "apart": {"eval": -1.0}}], r"outputs\[0\]\.apart in its"),
    ],
)
def test_what_no_header_says(key, value, said, tmp_path):
    path = tmp_path / "stats.npz"
    write_statistics(path, model_capture([np.ones((2, 3, 1, 2))]))
    with_header(path, lambda header: header.update({key: value}))
    with pytest.raises(CorruptFileError, match=said):
        open_statistics(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda layer: layer.update(seen=["train"]), "unknown propagation, train"),
        (lambda layer: layer.update(seen=["renewed"]), "its array renewed/values is missing"),
        (
            lambda layer: layer["state"]["tensors"].update(weight="object"),
            r"state\.tensors\.weight",
        ),
        (lambda layer: layer["state"]["tensors"].update(gamma="float32"), r"state\.tensors\.gamma"),
        (lambda layer: layer.update(name="input"), "two of its layers have one name"),
        (lambda layer: layer["state"].update(module=3), r"layers\[1\]\.state\.module"),
        (
            lambda layer: layer.update(num_features=4),
            r"its array layer has shape \[9\], not \[10\]",
        ),
        (
            lambda layer: layer.update(kernel={"in_channels": 3, "bias": False, "padded": False}),
            "its array kernel/1/sums is missing",
        ),
    ],
)
def test_what_no_layer_is(change, said, tmp_path):
    path = tmp_path / "stats.npz"
    write_statistics(path, model_capture([np.ones((2, 3, 1, 2))]))
    with_header(path, lambda header: change(header["layers"][1]))
    with pytest.raises(CorruptFileError, match=said):
        open_statistics(path)
