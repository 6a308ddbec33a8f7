"""Which files are ONNX models, and what such a file opens as."""

import onnx
import pytest
import torch
from onnx import helper

from bncli.errors import CorruptFileError
from bncli.loaders.interface import open_source
from bncli.loaders.onnx import detect
from bncli.state_dict import batch_norm_layers, read_state

from .models import model, norm_model, opened, raw

VERSION, PRODUCER, GRAPH = b"\x08\x07", b"\x12\x02pt", b"\x3a\x03\x12\x01g"


@pytest.mark.parametrize(
    ("data", "fits"),
    [
        (VERSION + GRAPH, True),
        (VERSION + PRODUCER + GRAPH, True),
        (VERSION + PRODUCER + GRAPH[:3], True),  # cut short
        (VERSION + PRODUCER + GRAPH[:1], False),
        (GRAPH + VERSION, False),
        (VERSION + PRODUCER, False),
        (VERSION + b"\x38\x03", False),  # a number for a graph
        (VERSION + b"\x12\x7f", False),  # a name beyond the end
        (VERSION + b"\xa2\x06\x01x" + GRAPH, False),  # field 100
        (VERSION + VERSION * 20 + GRAPH, False),
        (b"\x08" + b"\xff" * 20, False),
    ],
)
def test_a_model_is_told_by_its_first_fields(data, fits, tmp_path):
    path = tmp_path / "m"
    path.write_bytes(data)
    with open_source(path) as source:
        assert detect(source) is fits


@pytest.mark.parametrize("opset", [1, 6, 7, 8, 9, 13, 14, 15, onnx.defs.onnx_opset_version()])
def test_a_layer_is_what_the_onnx_package_reads(opset, tmp_path):
    data = norm_model(opset, prefix="net.bn.", epsilon=1e-3, momentum=0.7)
    file = opened(tmp_path, data)
    assert file.container == "onnx"
    (layer,) = batch_norm_layers(file)
    state = read_state(layer)
    assert (layer.name, state.dtype) == ("net.bn", "float32")
    expected = {
        t.name: onnx.numpy_helper.to_array(t) for t in onnx.load_from_string(data).graph.initializer
    }
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        assert getattr(state, leaf).tobytes() == expected[f"net.bn.{leaf}"].tobytes()
    module = state.module
    assert (module.eps, module.stated_momentum) == (1e-3, 0.7)
    assert module.momentum == pytest.approx(0.3, abs=1e-15)
    assert module.convention == ("onnx" if opset >= 14 else "onnx-9")
    assert module.channel_axis == 1


def test_a_model_cut_short_says_so(tmp_path):
    data = norm_model()
    for length in (len(data) - 1, len(data) // 2, 40):
        with pytest.raises(CorruptFileError, match="download or"):
            opened(tmp_path, data[:length])


def test_a_folded_model_says_why_it_has_no_layer(tmp_path):
    conv = helper.make_node("Conv", ["x", "w"], ["y"])
    file = opened(tmp_path, model([conv], [raw("w", torch.rand(2, 2, 1, 1))]))
    assert batch_norm_layers(file) == []
    assert "1 convolution and no BatchNormalization node" in file.without_layers


def test_the_models_of_the_first_version_have_no_opset(tmp_path):
    made = onnx.load_from_string(norm_model(1))
    made.ir_version = 2
    del made.opset_import[:]
    assert len(batch_norm_layers(opened(tmp_path, made.SerializeToString()))) == 1
    made.ir_version = 3
    with pytest.raises(CorruptFileError, match="it has no opset_import, which every ONNX model"):
        opened(tmp_path, made.SerializeToString())
