"""What can have happened to a BatchNorm layer between two files, and how it is to be named.

A `Version` makes the first file's state_dict and the second's. All but its layers are the same in
both; or, where it happens `among` healthy layers, were trained on in the meantime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from bncli.model.changes import State
from tests.changes.causes import (
    BUFFERS,
    Making,
    Tensors,
    averaged,
    by_training,
    copied,
    counter_back,
    drop,
    edited,
    exchanged,
    extrapolated,
    folded,
    frozen_in_train,
    fused_by_torch,
    in_eval,
    initial,
    momentum_0,
    other_networks,
    other_range,
    permuted_with_convolution,
    resets,
    sees_nan,
    set_counter,
    statistics,
    swap_statistics,
    trains,
    variance,
    vectors,
    zeros_before,
)
from tests.changes.trainings import TRAINED


@dataclass(frozen=True)
class Version:
    """One thing that happens to some layers of a network.

    `states` says by layer what it is, and `numbers` what the first of them shows. `make` takes
    whether the other layers were trained on. `halves` says whether it can be seen in float16, and
    `partner` whether the layer is in both files.
    """

    name: str
    make: Making
    states: Mapping[str, State]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    halves: bool = True
    partner: bool = True

    def __str__(self) -> str:
        return self.name

    @property
    def layer(self) -> str:
        return next(iter(self.states))


PERMUTATION = torch.tensor([3, 0, 6, 1, 7, 2, 5, 4])
CAFFE = 1000 * (1 - 0.999**TRAINED)
"""The scale factor that Caffe stores beside the sums of its moving average."""

VERSIONS = (
    Version("trained", by_training(trains("neck.1")), {"neck.1": State.TRAINED}),
    Version("trained affine=False", by_training(trains("neck.4")), {"neck.4": State.TRAINED}),
    Version("trained one axis", by_training(trains("head.1")), {"head.1": State.TRAINED}),
    Version(
        "frozen, not in eval",
        by_training(frozen_in_train("layer1.0.bn2")),
        {"layer1.0.bn2": State.STATISTICS},
    ),
    Version(
        "frozen, not in eval, its convolution trains",
        by_training(frozen_in_train("layer3.0.bn1", convolution=False)),
        {"layer3.0.bn1": State.STATISTICS},
    ),
    Version(
        "frozen, not in eval, its input is 0",
        zeros_before("layer2.0.bn1"),
        {"layer2.0.bn1": State.STATISTICS},
    ),
    Version(
        "frozen, not in eval, images of another range",
        other_range("bn1"),
        {"bn1": State.STATISTICS},
    ),
    Version(
        "momentum 0",
        by_training(momentum_0("layer2.0.bn1")),
        {"layer2.0.bn1": State.WEIGHTS},
        {"cause": "own"},
    ),
    Version(
        "momentum 0, the counter put back",
        by_training(momentum_0("layer2.0.bn1"), counter_back("layer2.0.bn1")),
        {"layer2.0.bn1": State.WEIGHTS},
        {"cause": "own"},
    ),
    Version(
        "eval with an optimiser",
        by_training(in_eval("layer3.0.bn2")),
        {"layer3.0.bn2": State.WEIGHTS},
        {"cause": "own"},
    ),
    Version(
        "eval, the layer alone optimised",
        by_training(in_eval("neck.1", convolution=False)),
        {"neck.1": State.WEIGHTS},
        {"cause": "own"},
    ),
    Version(
        "eval and frozen, its convolution trains",
        by_training(in_eval("bn1", own=False)),
        {"bn1": State.WEIGHTS},
        {"cause": "before"},
    ),
    Version(
        "eval, affine=False, its convolution trains",
        by_training(in_eval("neck.4")),
        {"neck.4": State.WEIGHTS},
        {"cause": "before"},
    ),
    Version(
        "counter alone",
        edited(set_counter("layer3.0.bn1", 0), "layer3.0.bn1"),
        {"layer3.0.bn1": State.COUNTER},
    ),
    Version(
        "reset_running_stats",
        by_training(trains("layer2.0.bn2"), resets("layer2.0.bn2")),
        {"layer2.0.bn2": State.RESET},
    ),
    Version(
        "reset_running_stats of a frozen layer",
        by_training(in_eval("bn1", own=False, convolution=False), resets("bn1")),
        {"bn1": State.RESET},
    ),
    Version(
        "reset, affine=False",
        by_training(trains("neck.4"), resets("neck.4")),
        {"neck.4": State.RESET},
    ),
    Version(
        "reset, as another layer is in both",
        edited(
            lambda state: [initial(layer)(state) for layer in ("layer3.0.bn1", "layer3.0.bn2")],
            "layer3.0.bn1",
            "layer3.0.bn2",
            first=initial("layer3.0.bn1"),
        ),
        {"layer3.0.bn2": State.RESET, "layer3.0.bn1": State.IDENTICAL},
    ),
    Version(
        "strict=False",
        edited(initial("layer2.0.downsample.1"), "layer2.0.downsample.1"),
        {"layer2.0.downsample.1": State.RESET},
    ),
    Version(
        "zeros by a converter",
        edited(statistics("neck.1", torch.zeros_like), "neck.1"),
        {"neck.1": State.EMPTY},
    ),
    Version(
        "buffers dropped",
        edited(drop("layer1.0.bn1", *BUFFERS), "layer1.0.bn1"),
        {"layer1.0.bn1": State.LOST},
    ),
    Version(
        "buffers dropped in the first",
        edited(lambda _: None, "layer1.0.bn1", first=drop("layer1.0.bn1", *BUFFERS)),
        {"layer1.0.bn1": State.LOST},
    ),
    Version(
        "weight and bias dropped",
        edited(drop("neck.1", "weight", "bias"), "neck.1"),
        {"neck.1": State.LOST},
    ),
    Version(
        "the whole layer dropped",
        edited(drop("layer3.0.bn2"), "layer3.0.bn2"),
        {"layer3.0.bn2": State.LOST},
        partner=False,
    ),
    Version(
        "extrapolating average",
        edited(extrapolated("layer3.0.bn1"), "layer3.0.bn1"),
        {"layer3.0.bn1": State.IMPOSSIBLE},
    ),
    Version(
        "NaN in a batch",
        by_training(trains("layer2.0.bn1"), sees_nan("layer2.0.bn1")),
        {"layer2.0.bn1": State.IMPOSSIBLE},
    ),
    Version(
        "biased for unbiased, n 16",
        edited(variance("head.1", lambda var: var * 15 / 16), "head.1"),
        {"head.1": State.CONVENTION},
        {"cause": "unbiased", "unbiased_file": "first", "n": 16},
    ),
    Version(
        "unbiased for biased, n 128",
        edited(variance("neck.1", lambda var: var * 128 / 127), "neck.1"),
        {"neck.1": State.CONVENTION},
        {"cause": "unbiased", "unbiased_file": "second", "n": 128},
    ),
    Version(
        "biased for unbiased, averaged",
        edited(
            averaged("layer2.0.bn2", unbiased=False),
            "layer2.0.bn2",
            first=averaged("layer2.0.bn2", unbiased=True),
        ),
        {"layer2.0.bn2": State.CONVENTION},
        {"cause": "unbiased", "unbiased_file": "first", "n": 128},
    ),
    Version(
        "eps in the variance",
        edited(variance("neck.1", lambda var: var + 1e-5), "neck.1"),
        {"neck.1": State.CONVENTION},
        {"cause": "eps-in-variance", "odd_file": "second", "eps": 1e-5},
        halves=False,
    ),
    Version(
        "eps 0.001 in the variance",
        edited(variance("head.1", lambda var: var + 1e-3), "head.1"),
        {"head.1": State.CONVENTION},
        {"cause": "eps-in-variance", "odd_file": "second", "eps": 1e-3},
    ),
    Version(
        "eps out of the variance",
        edited(lambda _: None, "head.1", first=variance("head.1", lambda var: var + 1e-3)),
        {"head.1": State.CONVENTION},
        {"cause": "eps-in-variance", "odd_file": "first", "eps": 1e-3},
    ),
    Version(
        "inverse std",
        edited(variance("layer1.0.bn1", lambda var: 1 / torch.sqrt(var + 1e-5)), "layer1.0.bn1"),
        {"layer1.0.bn1": State.CONVENTION},
        {"cause": "inverse-std", "odd_file": "second"},
    ),
    Version(
        "std",
        edited(variance("layer1.0.bn1", torch.sqrt), "layer1.0.bn1"),
        {"layer1.0.bn1": State.CONVENTION},
        {"cause": "std", "odd_file": "second"},
    ),
    Version(
        "mean and variance swapped",
        edited(swap_statistics("layer2.0.downsample.1"), "layer2.0.downsample.1"),
        {"layer2.0.downsample.1": State.CONVENTION},
        {"cause": "swapped"},
    ),
    Version(
        "scale factor not divided out",
        edited(statistics("layer3.0.bn1", lambda values: values * CAFFE), "layer3.0.bn1"),
        {"layer3.0.bn1": State.CONVENTION},
        {"cause": "scale-factor", "odd_file": "second", "k": CAFFE},
    ),
    Version(
        "scale factor divided out in the second",
        edited(
            lambda _: None,
            "layer3.0.bn1",
            first=statistics("layer3.0.bn1", lambda values: values * CAFFE),
        ),
        {"layer3.0.bn1": State.CONVENTION},
        {"cause": "scale-factor", "odd_file": "first", "k": 1 / CAFFE},
    ),
    Version(
        "permuted",
        edited(vectors("layer1.0.bn2", lambda values: values[PERMUTATION]), "layer1.0.bn2"),
        {"layer1.0.bn2": State.ORDER},
        {"cause": "permuted", "moved": 8},
    ),
    Version(
        "permuted with its convolution",
        edited(permuted_with_convolution("layer1.0.bn2", PERMUTATION), "layer1.0.bn2"),
        {"layer1.0.bn2": State.ORDER},
        {"cause": "permuted", "moved": 8, "convolution": "same order"},
    ),
    Version(
        "permuted, affine=False",
        edited(vectors("neck.4", lambda values: values.flip(0)), "neck.4"),
        {"neck.4": State.ORDER},
        {"cause": "permuted", "order": "reversed"},
    ),
    Version(
        "shifted by 3",
        edited(vectors("layer2.0.bn1", lambda values: values.roll(3)), "layer2.0.bn1"),
        {"layer2.0.bn1": State.ORDER},
        {"shift": 3},
    ),
    Version(
        "another layer's",
        edited(copied("layer3.0.bn2", "layer3.0.bn1"), "layer3.0.bn1", "layer3.0.bn2"),
        {"layer3.0.bn1": State.ORDER, "layer3.0.bn2": State.IDENTICAL},
        {"cause": "other-layer", "holds": "layer3.0.bn2"},
    ),
    Version(
        "two layers exchanged",
        edited(exchanged("layer3.0.bn1", "layer3.0.bn2"), "layer3.0.bn1", "layer3.0.bn2"),
        {"layer3.0.bn1": State.ORDER, "layer3.0.bn2": State.ORDER},
        {"cause": "exchanged", "holds": "layer3.0.bn2"},
    ),
    Version(
        "of another network",
        edited(other_networks("layer3.0.bn1"), "layer3.0.bn1"),
        {"layer3.0.bn1": State.DIFFERENT},
    ),
    *(
        Version(
            f"fused by torch: {layer}",
            fused_by_torch(layer),
            {layer: State.FOLDED},
            {"fault": None, "eps": 1e-5},
            partner=False,
        )
        for layer in ("bn1", "layer2.0.downsample.1", "neck.1", "neck.4", "head.1")
    ),
    Version(
        "folded, the convolution's bias not scaled",
        edited(folded("neck.1", bias_scaled=False), "neck.1"),
        {"neck.1": State.FOLDED},
        {"fault": "bias-not-scaled"},
        partner=False,
    ),
    Version(
        "folded, the mean left out",
        edited(folded("layer2.0.bn2", mean_folded=False), "layer2.0.bn2"),
        {"layer2.0.bn2": State.FOLDED},
        {"fault": "mean"},
        partner=False,
    ),
    Version(
        "folded with eps 0.001",
        edited(folded("head.1", eps=1e-3), "head.1"),
        {"head.1": State.FOLDED},
        {"eps": 1e-3},
        partner=False,
    ),
    Version(
        "folded, and the layer is still there",
        edited(folded("layer1.0.bn1", keep=True), "layer1.0.bn1"),
        {"layer1.0.bn1": State.FOLDED},
        {"fault": "twice", "eps": 1e-5, "in": "second"},
    ),
)

NAMED = {version.name: version for version in VERSIONS}


@cache
def _states_of(name: str, among: bool) -> tuple[Tensors, Tensors]:
    return NAMED[name].make(among)


def states_of(version: Version, among: bool) -> tuple[Tensors, Tensors]:
    """The two state_dicts of a version; what is done to them is done to all users' alike."""
    first, second = _states_of(version.name, among)
    return dict(first), dict(second)
