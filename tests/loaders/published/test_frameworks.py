"""Files that Flax, Haiku, Paddle and MXNet write themselves, in a process of their own."""

import os
import subprocess
import sys

import numpy as np
import pytest

from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers, read_state
from tests.loaders.files import assert_same

from .packages import installed

pytestmark = pytest.mark.published

JAX = (
    "flax==0.12.8", "jax==0.10.2", "jaxlib==0.10.2", "ml_dtypes==0.6.0", "msgpack==1.2.4",
    "opt_einsum==3.4.0", "optax==0.2.8", "absl_py==2.5.1", "etils==1.15.0", "scipy==1.17.1",
    "tensorstore==0.1.86", "treescope==0.1.10", "dm_haiku==0.0.17", "jmp==0.0.4",
    "tabulate==0.10.0", "rich==15.0.0", "pyyaml==6.0.4", "typing_extensions==4.16.0",
)  # fmt: skip
PADDLE = (
    "paddlepaddle==3.3.1", "httpx==0.28.1", "httpcore==1.0.9", "h11==0.16.0", "anyio==4.16.0",
    "idna==3.20", "sniffio==1.3.1", "protobuf==7.36.2", "pillow==13.0.0", "decorator==5.3.1",
    "astor==0.8.1", "opt_einsum==3.4.0", "networkx==3.6.1", "safetensors==0.8.0",
    "typing_extensions==4.16.0", "certifi==2026.10.19.post1",
)  # fmt: skip
MXNET = (
    "mxnet==1.9.1", "numpy==1.23.5", "requests==2.34.2", "graphviz==0.21", "urllib3==2.8.0",
    "idna==3.20", "certifi==2026.10.19.post1", "chardet==7.7.0",
)  # fmt: skip

WITH_FLAX = """
from typing import Any
import flax.linen as nn, haiku as hk, jax, numpy as np, optax
from flax import serialization
from flax.training import train_state

class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(nn.Conv(4, (3, 3))(x))
        return nn.BatchNorm(not train, use_scale=False, use_bias=False, name="plain")(x)

class State(train_state.TrainState):
    batch_stats: Any

x = jax.random.normal(jax.random.PRNGKey(1), (4, 8, 8, 3))
net = Net()
variables = net.init(jax.random.PRNGKey(0), x)
_, updated = net.apply(variables, x + 1, mutable=["batch_stats"])
variables = {"params": variables["params"], **updated}
state = State.create(apply_fn=net.apply, tx=optax.adam(1e-3), **variables)
leaves = jax.tree_util.tree_leaves_with_path(variables)
np.savez("flax.npz", **{"/".join(key.key for key in path): leaf for path, leaf in leaves})
np.savez("keystr.npz", **{jax.tree_util.keystr(path): leaf for path, leaf in leaves})
open("variables.msgpack", "wb").write(serialization.to_bytes(variables))
open("state.msgpack", "wb").write(serialization.to_bytes(state))
serialization.MAX_CHUNK_SIZE = 64
open("chunked.msgpack", "wb").write(serialization.to_bytes(variables))

def forward(x):
    return hk.BatchNorm(True, True, 0.9)(hk.Conv2D(4, 3)(x), is_training=True)

transformed = hk.transform_with_state(forward)
params, averages = transformed.init(jax.random.PRNGKey(0), x)
for step in range(3):
    _, averages = transformed.apply(params, averages, None, x + step)
both = [*params.items(), *averages.items()]
arrays = {f"{module}/{name}": value for module, own in both for name, value in own.items()}
np.savez("haiku.npz", **arrays)
"""
WITH_PADDLE = """
import numpy as np, paddle
net = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4))
optimizer = paddle.optimizer.Adam(parameters=net.parameters())
net(paddle.randn([4, 3, 8, 8])).mean().backward()
optimizer.step()
state = net.state_dict()
for protocol in (2, 3, 4):
    paddle.save(state, f"{protocol}.pdparams", protocol=protocol)
paddle.save({"model": state, "epoch": 3, "opt": optimizer.state_dict()}, "both.pdparams")
paddle.save(optimizer.state_dict(), "net.pdopt")
np.savez("expected.npz", **{name: value.numpy() for name, value in state.items()})
"""
WITH_MXNET = """
import mxnet as mx, numpy as np
x = mx.sym.Convolution(mx.sym.Variable("data"), num_filter=4, kernel=(3, 3), name="conv0")
x = mx.sym.BatchNorm(x, name="bn0")
x = mx.sym.BatchNorm(x, name="bn1", fix_gamma=False, eps=2e-5, momentum=0.95)
module = mx.mod.Module(x, label_names=[])
module.bind([("data", (2, 3, 8, 8))])
module.init_params(mx.init.Xavier())
arguments, states = module.get_params()
for arrays in (arguments, states):
    for name, array in arrays.items():
        arrays[name] = mx.nd.random.uniform(0.5, 2, array.shape)
module.set_params(arguments, states)
module.save_checkpoint("net", 3)
arguments, states = module.get_params()
expected = {f"arg:{name}": array.asnumpy() for name, array in arguments.items()}
expected |= {f"aux:{name}": array.asnumpy() for name, array in states.items()}
np.savez("expected.npz", **expected)
"""


def written(folder, requirements, script, *flags):
    """Run the script in a folder, with the packages alone in front of what is installed."""
    paths = os.pathsep.join(str(installed(each)) for each in requirements)
    env = os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, *flags, "-c", script], cwd=folder, env=env, check=True)
    return folder


def arrays(path):
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def jax_files(tmp_path_factory):
    return written(tmp_path_factory.mktemp("jax"), JAX, WITH_FLAX)


def test_variables_of_flax(jax_files):
    expected = arrays(jax_files / "flax.npz")
    for name in ("variables.msgpack", "chunked.msgpack", "keystr.npz"):
        file = open_file(jax_files / name)
        assert set(file.tensors) == set(expected)
        assert_same(file.tensors, expected)
    for name in ("variables.msgpack", "state.msgpack", "flax.npz", "keystr.npz"):
        layers = {layer.name: layer for layer in batch_norm_layers(open_file(jax_files / name))}
        assert set(layers) == {"BatchNorm_0", "plain"}
        state = read_state(layers["BatchNorm_0"])
        assert np.array_equal(state.weight, expected["params/BatchNorm_0/scale"])
        assert np.array_equal(state.running_var, expected["batch_stats/BatchNorm_0/var"])
        assert layers["plain"].weight is None


def test_the_averages_of_haiku(jax_files):
    expected = arrays(jax_files / "haiku.npz")
    (layer,) = batch_norm_layers(open_file(jax_files / "haiku.npz"))
    state = read_state(layer)
    assert layer.name == "batch_norm"
    assert np.array_equal(state.weight, expected["batch_norm/scale"].ravel())
    assert np.array_equal(state.running_var, expected["batch_norm/~/var_ema/average"].ravel())


def test_parameters_of_paddle(tmp_path):
    folder = written(tmp_path, PADDLE, WITH_PADDLE)
    expected = arrays(folder / "expected.npz")
    for protocol in (2, 3, 4):
        file = open_file(folder / f"{protocol}.pdparams")
        assert set(file.tensors) == set(expected)
        assert_same(file.tensors, expected)
    both = open_file(folder / "both.pdparams")
    assert_same(both.tensors, {f"model.{name}": array for name, array in expected.items()})
    assert [layer.name for layer in batch_norm_layers(both)] == ["model.1"]
    assert open_file(folder / "net.pdopt").without_layers


@pytest.mark.skipif(sys.version_info[:2] > (3, 11), reason="its NumPy has no wheels for newer ones")
def test_a_checkpoint_of_mxnet(tmp_path):
    folder = written(tmp_path, MXNET, WITH_MXNET, "-S")
    file = open_file(folder / "net-0003.params")
    expected = arrays(folder / "expected.npz")
    assert set(file.tensors) == set(expected)
    assert_same(file.tensors, expected)
    one, two = batch_norm_layers(file)
    assert (one.weight, one.module.eps, one.module.stated_momentum) == (None, 1e-3, 0.9)
    assert (two.module.eps, two.module.stated_momentum) == (2e-5, 0.95)
    assert np.array_equal(read_state(two).weight, expected["arg:bn1_gamma"])
