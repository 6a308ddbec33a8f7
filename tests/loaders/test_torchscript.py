import io

import pytest
import torch
from torch import nn

from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers

from .files import Net, assert_same, scripted

pytestmark = [
    # PyTorch deprecates TorchScript and its quantisation; the files stay.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def opened(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    return open_file(path)


def test_parameters_and_buffers_by_module_path(tmp_path):
    data = scripted(Net())
    file = opened(tmp_path, data)
    assert file.container == "torchscript"
    assert_same(file.tensors, torch.jit.load(io.BytesIO(data)).state_dict())
    # What TorchScript adds: the buffer that state_dict() leaves out.
    assert set(file.tensors) - set(Net().state_dict()) == {"scratch"}


def test_the_modules_that_keep_statistics_are_known_by_class(tmp_path):
    file = opened(tmp_path, scripted(Net().eval()))
    classes = {name: module.class_name for name, module in file.modules.items()}
    assert classes == {"bn": "BatchNorm2d", "blocks.1": "BatchNorm1d", "norm": "InstanceNorm2d"}
    assert file.modules["bn"].training is False
    assert file.modules["bn"].eps is None  # it is in the code, which stays unread
    assert [layer.name for layer in batch_norm_layers(file)] == ["bn", "blocks.1"]


def test_a_traced_module(tmp_path):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).eval()
    out = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, torch.zeros(1, 1, 2, 2)), out)
    file = opened(tmp_path, out.getvalue())
    assert_same(file.tensors, model.state_dict())
    assert set(file.tensors) == set(model.state_dict())


class Quantisable(nn.Module):
    def __init__(self):
        super().__init__()
        self.quant = torch.ao.quantization.QuantStub()
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(6, 2)
        self.bn = nn.BatchNorm2d(4)
        self.dequant = torch.ao.quantization.DeQuantStub()

    def forward(self, x):
        return self.dequant(self.linear(self.bn(self.conv(self.quant(x)))))


def test_an_int8_quantised_archive(tmp_path):
    engines = torch.backends.quantized.supported_engines
    engine = next((e for e in ("fbgemm", "x86", "qnnpack") if e in engines), None)
    if engine is None:
        pytest.skip("this PyTorch has no engine for quantised layers")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = engine
    try:
        model = Quantisable().eval()
        model.qconfig = torch.ao.quantization.get_default_qconfig(engine)
        prepared = torch.ao.quantization.prepare(model)
        prepared(torch.randn(1, 3, 8, 8))
        converted = torch.ao.quantization.convert(prepared)
        data = scripted(converted)
        expected = torch.jit.load(io.BytesIO(data)).state_dict()
    finally:
        torch.backends.quantized.engine = before
    file = opened(tmp_path, data)
    assert_same(file.tensors, expected)
    quantised = [ref for ref in file.tensors.values() if ref.unreadable == "it is quantised"]
    assert sorted(ref.shape for ref in quantised) == [(2, 6), (4, 3, 3, 3)]
    assert [layer.name for layer in batch_norm_layers(file)] == ["bn"]
