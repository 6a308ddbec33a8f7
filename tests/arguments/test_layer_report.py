"""What a report says of a layer: eps and momentum with their sources, the axis, the inputs."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.arguments.flags import LayerFlags
from bncli.arguments.input import open_input
from bncli.arguments.layer import resolve_layer
from bncli.arguments.layer_report import about_pass
from bncli.model import BatchNormModule
from tests.commands.samples import random
from tests.told_modules import layer as keras_layer
from tests.told_modules import tell, told_module


def test_what_a_pass_is_about(save):
    """The inputs in any order, and what is not PyTorch's default of mode and axis."""
    names = [save(f"{name}.npy", np.ones((4, 3, 2))) for name in ("b", "a")]
    weight = save("w.npy", np.ones(3))
    given = open_input(names, 1, None)
    training = resolve_layer(LayerFlags(weight=weight), given)
    assert about_pass(given, training) == (("a.npy", ""), ("b.npy", ""), ("w.npy", ""))
    assert training.read == ("w.npy",)
    given = open_input(names, -1, None)
    layer = resolve_layer(LayerFlags(training=False), given)
    words = (("", "evaluation"), ("", "channel axis 2"))
    assert about_pass(given, layer)[2:] == words
    assert about_pass(given, layer, mode=False)[2:] == words[1:]


@pytest.mark.parametrize(
    ("stored", "flags", "said"),
    [
        (
            told_module("keras3", momentum=0.9, eps=1e-2),
            (),
            "eps 0.01, momentum 0.1 (from the file, 0.9 in Keras)",
        ),
        (
            told_module("keras3", eps=1e-2),
            (),
            "eps 0.01 (from the file), momentum 0.01 (Keras' default, 0.99 in Keras)",
        ),
        (
            told_module("onnx", momentum=0.7),
            (),
            "eps 1e-05 (ONNX's default), momentum 0.3 (from the file, 0.7 in ONNX)",
        ),
        (told_module("keras3"), (), "eps 0.001, momentum 0.01 (Keras' defaults, 0.99 in Keras)"),
        (
            told_module("keras3", momentum=0.9, eps=1e-2),
            ("--momentum", "0.2", "--eps", "0.5"),
            "eps 0.5, momentum 0.2 (0.8 in Keras)",
        ),
        (
            told_module("keras3"),
            ("--momentum", "none"),
            "eps 0.001 (Keras' default), momentum none",
        ),
        (
            BatchNormModule("BatchNorm1d", 1e-2, has_momentum=False),
            (),
            "eps 0.01 (from the file), momentum 0.1 (default)",
        ),
        (BatchNormModule("BatchNorm1d", 1e-2, None), (), "eps 0.01, momentum none (from the file)"),
        (
            BatchNormModule("BatchNorm1d", momentum=0.3),
            (),
            "eps 1e-05 (default), momentum 0.3 (from the file)",
        ),
    ],
)
def test_eps_and_momentum_are_the_files_or_its_frameworks(
    run, save, monkeypatch, stored, flags, said
):
    tell(monkeypatch, stored)
    save("bn.npz", **keras_layer())
    x = save("x.npy", random(8, 3))
    line = run("compute", x, "--state", "bn.npz::bn", *flags, "--width", "200").stdout
    assert line.splitlines()[0].endswith(f"BatchNorm1d in training, {said}")


@pytest.mark.parametrize(
    ("stored", "flag", "used", "said"),
    [
        (-1, (), 2, ", channel axis -1 (from the file)"),
        (2, (), 2, ", channel axis 2 (from the file)"),
        (1, (), 1, ""),
        (None, (), 2, ", channel axis -1 (Keras' default)"),
        (None, ("--channel-axis", "1"), 1, ", channel axis 1 (Keras' default is -1)"),
        (-1, ("--channel-axis", "1"), 1, ", channel axis 1 (the file says -1)"),
        (-1, ("--channel-axis", "2"), 2, ", channel axis -1 (from the file)"),
    ],
)
@pytest.mark.parametrize("command", ["compute", "trace", "diff"])
def test_the_channel_axis_is_the_files(run, save, monkeypatch, command, stored, flag, used, said):
    tell(monkeypatch, told_module("keras3", momentum=0.9, eps=1e-2, channel_axis=stored))
    save("bn.npz", **keras_layer())
    x = save("x.npy", random(6, 3, 3))
    state = ("--state", "bn.npz::bn")
    result = run(command, x, *state, *flag, "-f", "json")
    assert result.report["facts"]["channel_axis"] == used
    line = run(command, x, *state, *flag, "--width", "200").stdout.splitlines()[0]
    assert line.endswith(f"0.9 in Keras){said}")


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (None, "eps 0.001, momentum 0.01 (Keras' defaults, 0.99 in Keras)"),
        (
            told_module("haiku"),
            "eps 1e-05 (Haiku's default), momentum 0.01 (assumed, 0.99 in Haiku)",
        ),
        (
            told_module("flax"),
            "eps 1e-05, momentum 0.01 (Flax's defaults, 0.99 in Flax)",
        ),
    ],
)
def test_defaults_are_those_that_inspect_checkpoint_assumes(run, save, monkeypatch, stored, said):
    tensors = keras_layer()
    if stored is not None:
        tell(monkeypatch, stored)
        own = {"moving_mean": "mean", "moving_variance": "var", "gamma": "scale", "beta": "bias"}
        tensors = {f"bn/{own[name[3:]]}": values for name, values in tensors.items()}
    save("bn.npz", **tensors)
    line = run("compute", save("x.npy", random(8, 3)), "--state", "bn.npz", "--width", "200").stdout
    assert line.splitlines()[0].endswith(f"in training, {said}")
    facts = run("inspect-checkpoint", "bn.npz", "-f", "json").report["tables"]["layers"][0]
    again = run("compute", "x.npy", "--state", "bn.npz", "-f", "json").report["facts"]
    assert {facts[key] == again[key] for key in ("eps", "momentum")} == {True}
