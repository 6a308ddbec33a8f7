"""Files that get worse or stay, and the gate that looks at them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bncli.cli import main

LEAVES = ("weight", "bias", "running_mean", "running_var")
NAMES = ("1", "3", "0.1", "bn", "module.bn", "a/b", "a.b", "layer1.bn", "layer2.bn", "layer[1].bn",
         "block 1 bn", "block 2 bn", "block channel 1", "block channel 2", "x._orig_mod.bn", "x.bn",
         "model.bn", "ema.bn")  # fmt: skip
CHANNELS = 8

Tensors = dict[str, np.ndarray]


def network(*names: str) -> Tensors:
    """Healthy layers; a layer has its own values, whatever stands beside it."""
    tensors: Tensors = {}
    for name in names:
        random = np.random.default_rng([len(name), *name.encode()])
        tensors[f"{name}.weight"] = random.uniform(0.5, 1.5, CHANNELS).astype(np.float32)
        tensors[f"{name}.bias"] = random.normal(0, 0.5, CHANNELS).astype(np.float32)
        tensors[f"{name}.running_mean"] = random.normal(0, 1, CHANNELS).astype(np.float32)
        tensors[f"{name}.running_var"] = random.uniform(0.5, 2, CHANNELS).astype(np.float32)
        tensors[f"{name}.num_batches_tracked"] = np.array(1000)
    return tensors


def spoilt(tensors: Tensors, layer: str, leaf: str, channels, value=np.nan) -> Tensors:
    changed = tensors[f"{layer}.{leaf}"].copy()
    changed[list(channels)] = value
    return tensors | {f"{layer}.{leaf}": changed}


def trained_on(tensors: Tensors) -> Tensors:
    """Other numbers, and the same faults."""
    return {
        name: value + 100
        if value.dtype == np.int64
        else (value * np.linspace(0.97, 1.03, value.size)).astype(value.dtype)
        for name, value in tensors.items()
    }


def wrapped(tensors: Tensors, prefix: str) -> Tensors:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def reordered(tensors: Tensors) -> Tensors:
    return dict(reversed(tensors.items()))


class Gate:
    """A folder with a baseline, and what the gate says of what lies there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *argv: object, at: str = "ci/known.json", update: bool = False) -> int:
        if update:
            (self.folder / "ci").mkdir(exist_ok=True)
        flags = ["--baseline", at, "-q", "--fail-on", "info", *["--update-baseline"] * update]
        code = main([*map(str, argv), *flags])
        assert code in ((0,) if update else (0, 1, 2))
        return int(code)

    def save(self, name: str, tensors: Tensors | np.ndarray) -> str:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(tensors, dict):
            np.savez(path, **tensors)
        else:
            np.save(path, tensors)
        return name

    def entries(self) -> list[dict]:
        return json.loads((self.folder / "ci/known.json").read_text("utf-8"))["findings"]
