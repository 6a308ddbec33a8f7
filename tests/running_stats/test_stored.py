"""What a file stores of eps and momentum, in its framework's words and in PyTorch's."""

import pytest

from bncli.model import BatchNormModule
from bncli.running_stats.frameworks import CONVENTIONS
from bncli.running_stats.stored import (
    convention_of,
    framework_of,
    said_by_names,
    said_momentum,
    stated_momentum,
    stored_momentum,
)

KERAS = BatchNormModule("BatchNormalization", 1e-3, 0.01, convention="keras3", stated_momentum=0.99)
TORCH = BatchNormModule("BatchNorm2d", 1e-5, 0.1)


def test_pytorchs_convention_and_an_unknown_one_are_none():
    assert convention_of(None) is None
    assert convention_of(TORCH) is None
    assert convention_of(BatchNormModule("BatchNorm", convention="of a later bncli")) is None
    assert convention_of(KERAS).name == "keras3"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("keras2", "Keras"),
        ("keras3", "Keras"),
        ("tf-fused", "Keras"),
        ("tf-v1", "TensorFlow"),
        ("onnx-9", "ONNX"),
        ("flax", "Flax"),
        ("haiku", "Haiku"),
        ("mxnet", "MXNet"),
        ("paddle-cudnn", "PaddlePaddle"),
    ],
)
def test_the_framework_in_a_word(name, said):
    (row,) = (row for row in CONVENTIONS if row.name == name)
    assert framework_of(row) == said


def test_every_framework_has_a_word():
    for row in CONVENTIONS:
        assert framework_of(row)[0].isalpha(), row.name


@pytest.mark.parametrize(
    ("module", "stored", "stated", "said"),
    [
        (None, None, None, "momentum 0.1"),
        (TORCH, (0.1,), None, "momentum 0.1"),
        (BatchNormModule("BatchNorm2d", 1e-5, None), (None,), None, "momentum none"),
        (BatchNormModule("BatchNorm2d", 1e-5, has_momentum=False), None, None, "momentum 0.1"),
        (BatchNormModule("BatchNorm2d"), None, None, "momentum 0.1"),
        (BatchNormModule("BatchNorm2d", momentum=0.1), (0.1,), None, "momentum 0.1"),
        (
            KERAS,
            (0.01,),
            0.99,
            "momentum 0.99 (Keras: weighs the old value; 0.01 in PyTorch's sense)",
        ),
        (
            BatchNormModule("BN", 1e-3, convention="keras3"),
            None,
            None,
            "momentum 0.9 (Keras: weighs the old value; 0.1 in PyTorch's sense)",
        ),
        (
            BatchNormModule("BN", momentum=0.1, convention="onnx"),  # what it states follows
            (0.1,),
            0.9,
            "momentum 0.9 (ONNX: weighs the old value; 0.1 in PyTorch's sense)",
        ),
        (BatchNormModule("BN", 1e-5, 0.1, convention="mlx"), (0.1,), 0.1, "momentum 0.1"),
    ],
)
def test_the_momentum_of_a_file(module, stored, stated, said):
    assert stored_momentum(module) == stored
    assert stated_momentum(module) == stated
    assert said_momentum(module, 0.1 if stored is None else stored[0]) == said


def test_a_momentum_that_is_not_the_files_is_said_in_its_frameworks_sense_too():
    said = "(Keras: weighs the old value; 0.2 in PyTorch's sense)"
    assert said_momentum(KERAS, 0.2) == f"momentum 0.8 {said}"
    assert said_momentum(None, 0.2) == "momentum 0.2"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("keras", "momentum 0.99 (Keras: weighs the old value; 0.01 in PyTorch's sense)"),
        ("flax", "momentum 0.99 (Flax: weighs the old value; 0.01 in PyTorch's sense)"),
        ("torch", "momentum 0.01"),
        ("unheard-of", "momentum 0.01"),
    ],
)
def test_names_of_tensors_tell_the_sense_of_a_momentum(names, said):
    assert said_by_names(names, 0.01) == said
