"""How the names of layers are spelled."""

from __future__ import annotations

import pytest

from bncli.changes.matching.spelling import bare_name, counted_as, loosely, without_numbers


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("/layer1/layer1.0/bn1/BatchNormalization", "layer1.0.bn1"),
        ("/features/features.3/conv/conv.0/conv.0.1/BatchNormalization", "features.3.conv.0.1"),
        ("/bn1/BatchNormalization_2", "bn1"),
        ("block1_bn/block1_bn", "block1_bn"),
        (
            "StatefulPartitionedCall/model/bn_1/FusedBatchNormV3",
            "StatefulPartitionedCall.model.bn.1",
        ),
        ("block1/bn", "block1_bn"),
        ("BatchNormalization_3", "batchnormalization.3"),
    ],
)
def test_one_layer_however_a_graph_names_it(name, same):
    assert loosely(name) == loosely(same)


def test_other_layers_stay_others():
    assert loosely("layer1.0.bn1") != loosely("layer1.0.bn2")
    assert loosely("/layer1/layer1.0/bn1") != loosely("/layer1/layer1.1/bn1")
    assert loosely("a.a.bn") == loosely("a.bn")  # a scope that is repeated


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("batch_normalization", "batch_normalization"),
        ("model/batch_normalization_12", "batch_normalization"),
        ("model/batch_normalization_12/FusedBatchNormV3", "batch_normalization"),
        ("ResNetBlock_3/BatchNorm_0", "batchnorm"),
        ("BatchNormalization_7", "batchnormalization"),
        ("batchnorm13", "batchnorm"),
        ("batch_normalization_v1_2", "batch_normalization_v1"),
        ("layer1.0.bn1", ""),
        ("/layer1/layer1.0/bn1/BatchNormalization", ""),
        ("features.3", ""),
        ("", ""),
    ],
)
def test_names_that_a_framework_counts(name, kind):
    assert counted_as(name) == kind


def test_wrappers_and_numbers():
    assert bare_name("module._orig_mod.layer1/bn") == "layer1.bn"
    assert without_numbers(["b.10", "a.2"]) == ["a.#", "b.#"]
