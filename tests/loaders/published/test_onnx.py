"""The ONNX models that packages ship, against what the onnx package reads in them."""

import hashlib

import onnx
import pytest

from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers, read_state

from .packages import installed

pytestmark = pytest.mark.published

OCR = "rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models"
PITCH = "basic-pitch==0.4.0", "basic_pitch/saved_models/icassp_2022"
MODELS = {
    "ch_ppocr_mobile_v2.0_cls_infer": (*OCR, 35),
    "ch_PP-OCRv4_rec_infer": (*OCR, 6),
    "ch_PP-OCRv4_det_infer": (*OCR, 3),
}
LEAVES = ("weight", "bias", "running_mean", "running_var")


def independent(path):
    """eps, momentum and a checksum of the parameters of each BatchNormalization node."""
    graph = onnx.load(path).graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            tensors |= {name: each.t for each in node.attribute for name in node.output}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            given = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
            arrays = [onnx.numpy_helper.to_array(tensors[name]) for name in node.input[1:]]
            data = b"".join(array.tobytes() for array in arrays)
            yield given["epsilon"], given["momentum"], hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_the_statistics_that_the_onnx_package_reads(name):
    requirement, folder, count = MODELS[name]
    path = installed(requirement) / folder / f"{name}.onnx"
    states = [read_state(layer) for layer in batch_norm_layers(open_file(path))]
    assert len(states) == count
    expected = list(independent(path))
    assert len(expected) == count
    for state, (eps, momentum, checksum) in zip(states, expected, strict=True):
        data = b"".join(getattr(state, leaf).tobytes() for leaf in LEAVES)
        assert hashlib.sha256(data).hexdigest() == checksum
        assert state.module.eps == pytest.approx(eps, rel=1e-7)
        assert state.module.stated_momentum == pytest.approx(momentum, rel=1e-7)
        assert state.module.momentum == pytest.approx(1 - momentum, rel=1e-6)


def test_a_folded_model_says_so():
    requirement, folder = PITCH
    file = open_file(installed(requirement) / folder / "nmp.onnx")
    assert batch_norm_layers(file) == []
    assert "32 convolutions and no BatchNormalization node" in file.without_layers
    assert "folds BatchNorm into" in file.without_layers
