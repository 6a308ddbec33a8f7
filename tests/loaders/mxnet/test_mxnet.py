"""MXNet's files with and without the symbol beside them."""

import numpy as np
import pytest

from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers, read_state
from bncli.state_dict.in_front import in_front
from tests.loaders.mxnet_files import model, saved, symbol

WITH = {"fix_gamma": "False", "eps": "2e-05", "momentum": "0.8", "axis": "1"}


def opened(folder, arrays, graph=None, name="net-0010.params"):
    (folder / name).write_bytes(saved(arrays))
    if graph is not None:
        (folder / "net-symbol.json").write_bytes(graph)
    return open_file(folder / name)


def assert_values(layer, arrays, name, *, gamma=True):
    state = read_state(layer)
    assert layer.name == name
    for leaf, own in (
        ("weight", f"arg:{name}_gamma"), ("bias", f"arg:{name}_beta"),
        ("running_mean", f"aux:{name}_moving_mean"), ("running_var", f"aux:{name}_moving_var"),
    ):  # fmt: skip
        if leaf == "weight" and not gamma:
            assert state.weight is None
        else:
            assert np.array_equal(getattr(state, leaf), arrays[own]), leaf


@pytest.mark.parametrize("attrs", ["attrs", "attr", "param"])
@pytest.mark.parametrize("name", ["net-0010.params", "net.params"])
def test_the_symbol_says_eps_momentum_and_whether_gamma_is_used(attrs, name, tmp_path):
    arrays = model()
    graph = symbol({"bn0": WITH, "bn1": {"use_global_stats": "True"}}, attrs)
    file = opened(tmp_path, arrays, graph, name)
    assert file.container == "mxnet"
    one, two = batch_norm_layers(file)
    assert_values(one, arrays, "bn0")
    assert_values(two, arrays, "bn1", gamma=False)
    assert (one.module.eps, one.module.stated_momentum) == (2e-5, 0.8)
    assert one.module.momentum == pytest.approx(0.2)
    assert (two.module.eps, two.module.stated_momentum) == (1e-3, 0.9)
    assert two.module.momentum == pytest.approx(0.1)
    assert (one.module.training, two.module.training) == (None, False)
    assert {layer.module.convention for layer in (one, two)} == {"mxnet"}
    assert {layer.module.channel_axis for layer in (one, two)} == {1}
    assert file.skipped == {
        "arg:bn1_gamma": "fix_gamma makes it 1, so that what is stored is not used"
    }
    front = in_front(file, {"bn0": one, "bn1": two})
    assert {name: near.weight.name for name, near in front.items()} == {
        "bn0": "arg:conv0_weight",
        "bn1": "arg:conv1_weight",
    }


def test_without_a_symbol_it_is_said_what_is_not_known(tmp_path):
    arrays = model()
    file = opened(tmp_path, arrays)
    one, two = batch_norm_layers(file)
    assert_values(one, arrays, "bn0")
    assert_values(two, arrays, "bn1")
    assert one.module.eps is None
    assert not one.module.has_momentum
    assert "fix_gamma, the default, makes it 1" in file.skipped["net-symbol.json"]
    assert not opened(tmp_path, {"arg:fc_weight": np.ones((2, 2))}).skipped
