"""How the relations are said."""

from __future__ import annotations

import numpy as np
import pytest

from bncli.changes.states.conventions import find
from bncli.report import Certainty
from tests.changes.pairs import NO_FILES
from tests.changes.states.conventions.layers import made


def test_the_sentences_of_an_inverse_standard_deviation():
    found = find(
        made(lambda layer: {"running_var": 1 / np.sqrt(layer["running_var"])}, forward=False),
        NO_FILES,
    )
    assert found.what == (
        "running_var holds the inverse standard deviation in the first file, without eps"
    )
    assert found.detail == (
        "With the second file's tensors, 1 / sqrt(running_var) is running_var of the first file."
    )
    assert found.hint == "In the first file, replace running_var by 1 / running_var**2."


@pytest.mark.parametrize(
    ("k", "said"),
    [
        (255, "running_mean is 255 times the first file's, running_var 65025 times"),
        (1 / 255, "running_mean is 1/255 of the first file's, running_var 1/65025 of it"),
    ],
)
def test_images_of_another_range_are_named(k, said):
    found = find(
        made(
            lambda layer: {
                "running_mean": k * layer["running_mean"],
                "running_var": k * k * layer["running_var"],
            }
        ),
        NO_FILES,
    )
    assert found.what == said
    assert "images of 0 to 255" in found.detail


def test_a_mean_multiplied_as_a_variance_is_named():
    found = find(
        made(
            lambda layer: {leaf: 32 / 31 * layer[leaf] for leaf in ("running_mean", "running_var")}
        ),
        NO_FILES,
    )
    assert found.numbers["cause"] == "scale-factor"
    assert found.numbers["n"] == 32


@pytest.mark.parametrize(("forward", "where"), [(True, "second"), (False, "first")])
def test_the_statistics_that_were_not_divided_are_to_be(forward, where):
    found = find(
        made(
            lambda layer: {leaf: 58.25 * layer[leaf] for leaf in ("running_mean", "running_var")},
            forward=forward,
        ),
        NO_FILES,
    )
    assert found.hint == f"Divide running_mean and running_var by 58.25 in the {where} file."


@pytest.mark.parametrize(("dtype", "said"), [("float32", "2.5"), ("float16", "2.5")])
def test_a_mean_that_was_scaled_alone(dtype, said):
    found = find(made(lambda layer: {"running_mean": layer["running_mean"] * 2.5}, dtype), NO_FILES)
    assert found.what.startswith(f"running_mean is {said}")
    assert found.certainty is Certainty.LIKELY


def test_a_flipped_sign_is_said_as_one():
    found = find(made(lambda layer: {"running_mean": -layer["running_mean"]}), NO_FILES)
    assert found.what == "the sign of running_mean is flipped"
    assert found.hint == "Multiply running_mean by -1 in the second file."


def test_a_blob_that_did_not_divide_is_named_after_caffe():
    found = find(
        made(
            lambda layer: {leaf: layer[leaf] / 999.98 for leaf in ("running_mean", "running_var")}
        ),
        NO_FILES,
    )
    assert found.what == "running_mean and running_var are 1/999.98 of the first file's"
    assert found.numbers["odd_file"] == "first"
    assert "third blob" in found.detail


def test_folded_statistics_are_not_called_reset():
    def folded(layer):
        scale = layer["weight"] / np.sqrt(layer["running_var"] + 1e-5)
        return {
            "weight": scale,
            "bias": layer["bias"] - layer["running_mean"] * scale,
            "running_mean": np.zeros(16),
            "running_var": np.ones(16),
        }

    found = find(made(folded), NO_FILES)
    assert (
        found.what == "the statistics are folded into weight and bias in the second file, eps 1e-05"
    )
    assert "computes the same in evaluation mode" in found.detail
