"""Trees of JAX's libraries, joined in the ways in which people flatten them into an .npz."""

import numpy as np
import pytest

from bncli.loaders import open_file
from bncli.loaders.jax_trees import plain_name, plain_names
from bncli.state_dict import batch_norm_layers, read_state

from .flax_files import flat, haiku_arrays, model

JOINED = {
    "/": "/".join,
    ".": ".".join,
    "keystr": lambda keys: "".join(f"['{key}']" for key in keys),
    "attributes": lambda keys: f".{keys[0]}" + "".join(f"['{key}']" for key in keys[1:]),
}


def saved(tmp_path, arrays):
    path = tmp_path / "x.npz"
    np.savez(path, **arrays)
    return open_file(path)


@pytest.mark.parametrize("joined", JOINED)
def test_flax_variables(joined, tmp_path):
    arrays = flat(model())
    file = saved(tmp_path, {JOINED[joined](name.split("/")): a for name, a in arrays.items()})
    layers = batch_norm_layers(file)
    assert [layer.name for layer in layers] == ["Block_0/BatchNorm_0", "Block_1/BatchNorm_0"]
    for layer in layers:
        state = read_state(layer)
        assert np.array_equal(state.weight, arrays[f"params/{layer.name}/scale"])
        assert np.array_equal(state.bias, arrays[f"params/{layer.name}/bias"])
        assert np.array_equal(state.running_mean, arrays[f"batch_stats/{layer.name}/mean"])
        assert np.array_equal(state.running_var, arrays[f"batch_stats/{layer.name}/var"])


@pytest.mark.parametrize("joint", ["/", "."])
@pytest.mark.parametrize("trees", [True, False])
def test_haiku_evaluates_with_the_averages(joint, trees, tmp_path):
    arrays = haiku_arrays()
    if not trees:
        arrays = {name.partition("/")[2]: array for name, array in arrays.items()}
    file = saved(tmp_path, {name.replace("/", joint): array for name, array in arrays.items()})
    layers = batch_norm_layers(file)
    assert [layer.name for layer in layers] == ["resnet/~/initial_bn", "resnet/block/bn"]
    params, state_ = ("params/", "state/") if trees else ("", "")
    for layer in layers:
        state = read_state(layer)
        name = layer.name
        for own, full in (
            ("weight", f"{params}{name}/scale"),
            ("bias", f"{params}{name}/offset"),
            ("running_mean", f"{state_}{name}/~/mean_ema/average"),
            ("running_var", f"{state_}{name}/~/var_ema/average"),
        ):
            assert np.array_equal(getattr(state, own), arrays[full].ravel()), own
        assert state.num_batches_tracked is None
        assert layer.module.convention == "haiku"


def test_of_two_trees_of_parameters_the_model_has_none(tmp_path):
    variables = model()
    arrays = flat({"a": {"params": variables["params"]}, **variables})
    moments = flat({"opt_state": {"mu": model(seed=3)["params"]}})
    layers = batch_norm_layers(saved(tmp_path, arrays | moments))
    told = {layer.name: layer.weight.name for layer in layers}
    assert told == {f"Block_{i}/BatchNorm_0": f"params/Block_{i}/BatchNorm_0/scale" for i in (0, 1)}
    state = {"params": flat(variables["params"]), "other": flat(variables["params"])}
    doubled = flat({"batch_stats": variables["batch_stats"], "state": state})
    assert len(batch_norm_layers(saved(tmp_path, doubled))) == 2


def test_a_statistic_without_its_neighbour_or_of_another_shape_is_none(tmp_path):
    arrays = {
        "batch_stats/a/mean": np.ones(3),
        "batch_stats/b/mean": np.ones(3),
        "batch_stats/b/var": np.ones(4),
        "bn/~/mean_ema/average": np.ones(3),
    }
    assert not batch_norm_layers(saved(tmp_path, arrays))


def test_names_as_jax_spells_them():
    assert plain_name("['params']['Conv_0']['kernel']") == "params/Conv_0/kernel"
    assert plain_name(".opt_state[0].mu['a/b']['w']") == "opt_state/0/mu/a/b/w"
    assert plain_name("['bn']['mean'].value") == "bn/mean"
    assert plain_name("['bn']['value']") == "bn/value"
    for name in ("a['b", "x['a']", "a.b", "a/b", "['a']x"):
        assert plain_name(name) == name
    both = ("['a']['b']", "a/b")
    assert plain_names(both) == dict(zip(both, both, strict=True))


@pytest.mark.parametrize("above", [(8,), (2, 3), (1,)])
def test_layers_that_are_stacked_are_each_its_own(above, tmp_path):
    """As nn.scan and nn.vmap stack them, and jax_utils.replicate."""
    rng = np.random.default_rng(0)
    names = ("params/bn/scale", "params/bn/bias", "batch_stats/bn/mean", "batch_stats/bn/var")
    arrays = {name: rng.random((*above, 4)) for name in names}
    layers = batch_norm_layers(saved(tmp_path, arrays))
    assert len(layers) == np.prod(above)
    for layer, place in zip(layers, np.ndindex(*above), strict=True):
        assert layer.name == f"bn[{', '.join(map(str, place))}]"
        state = read_state(layer)
        read = (state.weight, state.bias, state.running_mean, state.running_var)
        for values, array in zip(read, arrays.values(), strict=True):
            assert np.array_equal(values, array[place])


def test_a_layer_whose_shapes_disagree_is_left_as_it_is(tmp_path):
    arrays = {"batch_stats/bn/mean": np.ones((8, 4)), "batch_stats/bn/var": np.ones((8, 4))}
    file = saved(tmp_path, arrays | {"params/bn/scale": np.ones(4)})
    assert list(file.layers) == ["bn"]
    assert len(file.tensors) == 3


def test_so_many_layers_are_taken_out_of_stacks_and_no_more(tmp_path):
    arrays = {}
    for name in "ab":
        arrays |= {
            f"batch_stats/{name}/{leaf}": np.ones((600, 1), "f4") for leaf in ("mean", "var")
        }
    assert len(saved(tmp_path, arrays).layers) == 601
