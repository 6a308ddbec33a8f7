"""Whole pickled modules and training checkpoints, of classes that are not installed."""

import sys
import types

import pytest
import torch
from torch import nn

from bncli.loaders import open_file, open_layer
from bncli.model import BatchNormModule
from bncli.state_dict import batch_norm_layers

from .files import Net, assert_same, saved
from .pickles import (
    FALSE,
    NONE,
    TRUE,
    call,
    dictionary,
    name,
    ordered,
    tensor,
    text,
    torch_zip,
)  # fmt: skip


def opened(tmp_path, data):
    path = tmp_path / "x"
    path.write_bytes(data)
    return open_file(path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_whole_module_has_the_names_of_its_state_dict(protocol, tmp_path):
    net = Net()
    file = opened(tmp_path, saved(net, pickle_protocol=protocol))
    assert list(file.tensors) == list(net.state_dict())
    assert_same(file.tensors, net.state_dict())


def test_what_each_batch_norm_says_of_itself(tmp_path):
    model = nn.ModuleDict(
        {
            "plain": nn.BatchNorm1d(2),
            "cumulative": nn.BatchNorm2d(2, momentum=None, eps=0.5),
            "bare": nn.BatchNorm3d(2, affine=False),
            "forgetful": nn.BatchNorm2d(2, track_running_stats=False),
            "synced": nn.SyncBatchNorm(2).eval(),
            "instance": nn.InstanceNorm1d(2, track_running_stats=True),
            "group": nn.GroupNorm(2, 2),
        }
    )
    file = opened(tmp_path, saved({"net": model}))
    assert file.modules == {
        "net.plain": BatchNormModule("BatchNorm1d", 1e-5, 0.1, True, True, True),
        "net.cumulative": BatchNormModule("BatchNorm2d", 0.5, None, True, True, True),
        "net.bare": BatchNormModule("BatchNorm3d", 1e-5, 0.1, False, True, True),
        "net.forgetful": BatchNormModule("BatchNorm2d", 1e-5, 0.1, True, False, True),
        "net.synced": BatchNormModule("SyncBatchNorm", 1e-5, 0.1, True, True, False),
        "net.instance": BatchNormModule("InstanceNorm1d", 1e-5, 0.1, False, True, True),
    }
    assert [layer.name for layer in batch_norm_layers(file)] == [
        "net.plain", "net.cumulative", "net.bare", "net.forgetful", "net.synced",
    ]  # fmt: skip
    assert open_layer(f"{tmp_path / 'x'}::cumulative").module.momentum is None


def test_classes_that_are_not_installed(tmp_path):
    module = types.ModuleType("vanished_package")
    sys.modules["vanished_package"] = module
    try:
        for class_name, base in (
            ("Model", nn.Module),
            ("Config", object),
            ("Norm", nn.BatchNorm2d),
        ):
            cls = type(class_name, (base,), {"__module__": "vanished_package"})
            setattr(module, class_name, cls)
        model = module.Model()
        model.norm = module.Norm(3, eps=1e-2)
        model.first = nn.Conv2d(1, 3, 1)
        model.shared = model.first
        config = module.Config()
        config.model = model
        config.optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        data = saved({"model": model, "ema": nn.DataParallel(model), "config": config})
        expected = model.state_dict()
    finally:
        del sys.modules["vanished_package"]
    file = opened(tmp_path, data)
    for prefix in ("model", "ema.module", "config.model"):
        assert_same(file.tensors, {f"{prefix}.{k}": v for k, v in expected.items()})
    assert file.modules["model.norm"].class_name == "Norm"
    assert file.modules["model.norm"].eps == 1e-2


def test_a_lightning_checkpoint(tmp_path):
    net = Net()
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    checkpoint = {
        "epoch": 3, "global_step": 1000, "pytorch-lightning_version": "2.1.0",
        "state_dict": {f"model.{k}": v for k, v in net.state_dict().items()},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best": torch.tensor(0.5)}},
        "optimizer_states": [sgd.state_dict()], "lr_schedulers": [],
        "hparams_name": "kwargs", "hyper_parameters": {"lr": 0.1, "net": net},
    }  # fmt: skip
    file = opened(tmp_path, saved(checkpoint))
    assert_same(file.tensors, {f"state_dict.model.{k}": v for k, v in net.state_dict().items()})
    assert [layer.name for layer in batch_norm_layers(file)] == [
        "state_dict.model.bn", "state_dict.model.blocks.1", "state_dict.model.norm",
        "hyper_parameters.net.bn", "hyper_parameters.net.blocks.1",
    ]  # fmt: skip


def test_omegaconf_as_it_is_pickled(tmp_path):
    """Its nodes hold their parents, so the records go in circles."""
    node = name("omegaconf.nodes", "AnyNode") + b")\x81\x94" + dictionary(_val=b"K\x01") + b"b"
    config = (
        name("omegaconf.dictconfig", "DictConfig") + b")\x81" + b"\x94"
        + b"}(" + text("_content") + dictionary(lr=node) + text("_parent") + b"h\0u" + b"b"
    )  # fmt: skip
    file = opened(tmp_path, torch_zip(dictionary(hyper_parameters=config, w=tensor())))
    assert list(file.tensors) == ["w"]


def test_modules_of_the_oldest_kind(tmp_path):
    """No attribute but the dictionaries, no counter, no track_running_stats."""
    norm = (
        call(name("copy_reg", "_reconstructor"), name("torch.nn.modules.batchnorm", "BatchNorm2d"),
             name("__builtin__", "object"), NONE)
        + dictionary(
            _parameters=ordered(weight=call(name("torch.nn.parameter", "Parameter"), tensor())),
            _buffers=ordered(running_mean=tensor(), running_var=tensor()),
            _modules=ordered(), training=TRUE, eps=b"G>\xe4\xf8\xb5\x88\xe3h\xf1", affine=FALSE,
            momentum=b"G?\xb9\x99\x99\x99\x99\x99\x9a",
        ) + b"b"
    )  # fmt: skip
    file = opened(tmp_path, torch_zip(norm))
    assert list(file.tensors) == ["weight", "running_mean", "running_var"]
    assert file.modules == {"": BatchNormModule("BatchNorm2d", 1e-5, 0.1, False, None, True)}


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.norm = nn.BatchNorm2d(2, eps=1e-3)

    def forward(self, x):
        return self.norm(self.conv(x))


def test_a_traced_module_has_the_names_of_its_state_dict(tmp_path):
    traced = torch.fx.symbolic_trace(Pair())
    file = opened(tmp_path, saved({"net": traced}))
    assert_same(file.tensors, {f"net.{k}": v for k, v in traced.state_dict().items()})
    assert file.modules["net.norm"].eps == 1e-3


def test_a_compiled_module_has_the_names_of_its_state_dict(tmp_path):
    state = dictionary(_parameters=ordered(weight=tensor()), _buffers=ordered(), _modules=ordered())
    module = name("net", "Net") + b")\x81" + state + b"b"
    compiled = call(name("torch._dynamo.eval_frame", "OptimizedModule"), module, NONE)
    assert list(opened(tmp_path, torch_zip(compiled)).tensors) == ["_orig_mod.weight"]


@pytest.mark.parametrize(
    ("attributes", "known"), [({}, False), ({"momentum": NONE}, True)], ids=["absent", "none"]
)
def test_a_module_without_a_momentum_is_not_one_with_none(attributes, known, tmp_path):
    norm = name("net", "FrozenBatchNorm2d") + b")\x81" + dictionary(
        _parameters=ordered(), _modules=ordered(), eps=b"G>\xe4\xf8\xb5\x88\xe3h\xf1",
        _buffers=ordered(running_mean=tensor(), running_var=tensor()), **attributes,
    ) + b"b"  # fmt: skip
    module = opened(tmp_path, torch_zip(norm)).modules[""]
    assert module.momentum is None
    assert module.has_momentum is known


class Tracker(nn.Module):
    """A module that keeps running statistics, and has no Norm in its name."""

    def __init__(self, value):
        super().__init__()
        self.register_buffer("running_mean", value)
        self.register_buffer("running_var", value)
        self.weight = nn.Parameter(torch.ones(2))


@pytest.mark.parametrize("value", [None, torch.ones(2)])
def test_who_keeps_running_statistics_is_a_norm_by_any_name(value, tmp_path):
    file = opened(tmp_path, saved(nn.ModuleDict({"a": Tracker(value)})))
    assert list(file.modules) == ([] if value is None else ["a"])
    assert "a.weight" in file.tensors


@pytest.mark.parametrize(
    ("eps", "known"), [(1, 1.0), (True, None), (1 << 53, None), ("1", None), (-2, -2.0)]
)
def test_only_a_number_is_an_eps(eps, known, tmp_path):
    module = nn.BatchNorm1d(2)
    module.eps = eps
    assert opened(tmp_path, saved(module)).modules[""].eps == known
