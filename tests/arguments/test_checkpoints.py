"""Shards and folders stand for their model once; globs that fit no layer get a near name."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save_file

from bncli.arguments.checkpoints import as_models, refuse_globs
from bncli.errors import UsageError

NAMES = ["backbone.layer1.bn", "backbone.layer2.bn", "head.bn"]


def test_shards_and_their_folder_are_one_model(folder):
    for number in (1, 2):
        save_file({f"t{number}": np.ones(2)}, f"net-0000{number}-of-00002.safetensors")
    first, second = (f"net-0000{number}-of-00002.safetensors" for number in (1, 2))
    assert as_models([second, first, "."]) == [first]
    assert as_models([f"{second}::ema", first]) == [f"{first}::ema", first]
    assert as_models(["missing.pt", "missing.pt"]) == ["missing.pt"]


@pytest.mark.parametrize(
    ("globs", "said"),
    [
        (["backbone"], "write 'backbone.*' for the layers that begin with it."),
        (["backbon.*"], "did you mean 'backbone.*'?"),
        (["head.bm"], "there are 3, such as head.bn."),
        (["zzz"], "there are 3, such as backbone.layer1.bn, backbone.layer2.bn, head.bn."),
    ],
)
def test_a_glob_that_fits_no_layer(globs, said):
    with pytest.raises(UsageError) as raised:
        refuse_globs(f"--layer {globs[0]}", globs, NAMES)
    assert str(raised.value) == (f"--layer {globs[0]}: no BatchNorm layer has such a name; {said}")
