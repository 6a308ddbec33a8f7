"""The TensorFlow models that packages ship, against what TensorFlow reads in them."""

import hashlib

import pytest

from bncli.loaders import open_file
from bncli.model import StoredFront
from bncli.state_dict import batch_norm_layers, read_state

from .packages import installed

pytestmark = pytest.mark.published

MUSIC = "musicnn==0.1.0"
PITCH = "basic-pitch==0.4.0"
LEAVES = ("weight", "bias", "running_mean", "running_var")
READ_BY_TENSORFLOW = {
    "MSD_musicnn": (11, "d9391c679d50b6a7"),
    "MSD_vgg": (6, "0804a66046358aa1"),
    "MTT_musicnn": (11, "f568ba575a50d81f"),
    "MTT_vgg": (6, "da8decbda516967f"),
}
"""The number of layers, and the SHA-256 of all their tensors, sorted by the layers' names: from
tf.train.load_checkpoint of TensorFlow 2.21."""
PITCH_SUM = "035c851ff7116013"


def read(path):
    """The states of the layers, and the SHA-256 of all their tensors."""
    states = sorted(map(read_state, batch_norm_layers(open_file(path))), key=lambda one: one.name)
    data = b"".join(getattr(state, leaf).tobytes() for state in states for leaf in LEAVES)
    return states, hashlib.sha256(data).hexdigest()[:16]


@pytest.mark.parametrize("name", READ_BY_TENSORFLOW)
def test_every_layer_of_musicnn_has_its_values_eps_and_momentum(name):
    states, checksum = read(installed(MUSIC) / "musicnn" / name)
    assert (len(states), checksum) == READ_BY_TENSORFLOW[name]
    assert {(s.module.eps, s.module.momentum, s.module.stated_momentum) for s in states} == {
        (1e-3, 0.01, 0.99)
    }
    # Two layers of one of the networks are computed by single operations.
    single = {s.name for s in states if s.module.convention == "tf-unfused"}
    assert single == (
        {"batch_normalization_9", "batch_normalization_10"} if "musicnn" in name else set()
    )
    assert {s.module.channel_axis for s in states if s.name not in single} == {3}


@pytest.mark.parametrize("name", [".index", ".data-00000-of-00001", ".meta", "checkpoint"])
def test_a_checkpoint_without_a_name_goes_by_all_of_its_files(name):
    states, _ = read(installed(MUSIC) / "musicnn" / "MSD_vgg" / name)
    assert len(states) == 6


def test_the_saved_model_of_basic_pitch_tells_its_graph():
    path = installed(PITCH) / "basic_pitch" / "saved_models" / "icassp_2022" / "nmp"
    states, checksum = read(path)
    assert [state.name for state in states] == [
        "batch_normalization", "batch_normalization_2", "batch_normalization_3",
    ]  # fmt: skip
    assert checksum == PITCH_SUM
    assert {(s.module.eps, s.module.momentum, s.module.channel_axis) for s in states} == {
        (1e-3, 0.01, 3)
    }
    fronts = {name: layer.front for name, layer in open_file(path).layers.items()}
    assert fronts == {
        "batch_normalization": None,
        "batch_normalization_2": StoredFront("conv2d_1", "conv2d_1/kernel", "conv2d_1/bias", 3),
        "batch_normalization_3": StoredFront("conv2d_4", "conv2d_4/kernel", "conv2d_4/bias", 3),
    }
