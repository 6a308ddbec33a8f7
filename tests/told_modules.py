"""A file of another framework: an .npz whose layers come with what the framework stores of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bncli.loaders import npz
from bncli.model import BatchNormModule
from bncli.running_stats.frameworks import convention


def told_module(name, *, momentum=None, **more):
    """A module of this convention, whose momentum is stated as the framework means it."""
    new = None if momentum is None else convention(name).new_weight(momentum)
    return BatchNormModule(
        "BatchNormalization",
        momentum=new,
        stated_momentum=momentum,
        has_momentum=momentum is not None,
        convention=name,
        **more,
    )


def tell(monkeypatch, told):
    """From now on, every layer of an .npz is said to have that module."""
    opened = npz.open_tensors

    def open_tensors(source):
        file = opened(source)
        names = {name.rpartition("/")[0] for name in file.tensors if "/" in name}
        return replace(file, modules=dict.fromkeys(names, told))

    monkeypatch.setattr(npz, "open_tensors", open_tensors)


def layer(channels=3, name="bn", **tensors):
    """The tensors of a layer as Keras names them, by their names in the file."""
    rng = np.random.default_rng(0)
    own = {
        "gamma": rng.uniform(0.5, 1.5, channels),
        "beta": rng.normal(size=channels),
        "moving_mean": rng.normal(size=channels),
        "moving_variance": rng.uniform(0.5, 2, channels),
    } | tensors
    return {f"{name}/{leaf}": value.astype(np.float32) for leaf, value in own.items()}
