"""How the nets are trained: one loop, a recipe for each way, and the states kept in a folder."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel

from tests.live.faults.data import SCANNERS, Pictures, pictures, scanned, standardised
from tests.live.faults.nets import ARCHITECTURES


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    `after` names the recipe whose result it goes on from. `scanners` is "alike" (one device),
    "batch" (each batch from one of four), "mixed" (each picture from one of four) or "other" (a
    device that was not there before). `standardise` is off where pictures go in as they are.
    `freeze` trains with all BatchNorm layers in evaluation mode and their weights held.
    `average` averages the weights of every tenth step as stochastic weight averaging does.
    """

    steps: int = 150
    batch: int = 32
    lr: float = 0.05
    decays: bool = True
    scanners: str = "alike"
    standardise: bool = True
    freeze: bool = False
    average: bool = False
    after: str | None = None
    net: dict[str, Any] = field(default_factory=dict)


BASE = Recipe()
TWO = replace(BASE, steps=300, batch=2, lr=0.02)
RECIPES = {
    "base": BASE,
    "raw": replace(BASE, standardise=False),
    "momentum": replace(BASE, net={"momentum": 0.99}),
    "scanners": replace(BASE, scanners="batch"),
    "mixed": replace(BASE, scanners="mixed"),
    "two": TWO,
    "momentum-scanners": replace(BASE, scanners="batch", net={"momentum": 0.99}),
    "two-scanners": replace(TWO, scanners="batch"),
    "dropout": replace(BASE, net={"drop": 0.5}),
    "untracked": replace(BASE, net={"track": False}),
    "later": replace(BASE, steps=200, lr=0.1, after="base"),
    "frozen": replace(BASE, steps=200, lr=0.005, scanners="other", freeze=True, after="base"),
    "average": replace(BASE, lr=0.1, decays=False, average=True),
    "momentum-two-scanners": replace(TWO, scanners="batch", net={"momentum": 0.99}),
}

NORMS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


def norms(net: nn.Module) -> dict[str, nn.Module]:
    """The normalisation layers of a net by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, NORMS)}


def drawn(n: int, generator: torch.Generator, scanners: str = "alike") -> Pictures:
    """n pictures as the devices give them; of "batch" all are from one."""
    drawn = pictures(n, generator)
    if scanners == "alike":
        return drawn
    if scanners == "other":
        darker = 0.6 * drawn.images + 0.35
        noise = 0.03 * torch.randn(darker.shape, generator=generator)
        return drawn._replace(images=darker + noise)
    which = torch.randint(0, len(SCANNERS), (n,), generator=generator)
    if scanners == "batch":
        which = which[:1].expand(n)
    return drawn._replace(images=scanned(drawn.images, which))


def loss_of(output: torch.Tensor, truth: Pictures) -> torch.Tensor:
    """Cross entropy: of the label, or of the mask where there is an output for each pixel."""
    return functional.cross_entropy(output, truth.labels if output.ndim == 2 else truth.masks)


def fit(net: nn.Module, recipe: Recipe, seed: int) -> nn.Module:
    """Train a net; returns it, or the average of its weights."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # dropout
    net.train()
    if recipe.freeze:
        freeze(net)
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=recipe.lr, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.steps)
    averaged = AveragedModel(net)
    for step in range(recipe.steps):
        truth = drawn(recipe.batch, generator, recipe.scanners)
        output = net(standardised(truth.images) if recipe.standardise else truth.images)
        optimizer.zero_grad()
        loss_of(output, truth).backward()
        optimizer.step()
        if recipe.decays:
            schedule.step()
        if recipe.average and step % 10 == 9:
            averaged.update_parameters(net)
    return averaged.module if recipe.average else net


def freeze(net: nn.Module) -> None:
    """Hold BatchNorm layers as detectors do while they are fine-tuned: by mode and by gradients."""
    for module in norms(net).values():
        module.eval()
        for parameter in module.parameters():
            parameter.requires_grad_(False)


@contextmanager
def one_thread():
    """Nets as small as these are faster on one thread, and give the same bits everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@dataclass(frozen=True)
class Store:
    """Trained states in a folder; each is trained when it is first asked for.

    Several processes may share the folder: a file is whole once it has its name.
    """

    folder: Path

    def net(self, architecture: str, recipe: str, seed: int) -> nn.Module:
        """A trained net, in evaluation mode."""
        how = RECIPES[recipe]
        torch.manual_seed(seed)
        net = ARCHITECTURES[architecture](**how.net)
        path = self.folder / f"{architecture}-{recipe}-{seed}.pt"
        if not path.exists():
            if how.after is not None:
                net.load_state_dict(self.net(architecture, how.after, seed).state_dict())
            with one_thread():
                trained = fit(net, how, 100 * list(RECIPES).index(recipe) + seed)
            whole = path.with_suffix(f".{os.getpid()}")
            torch.save(trained.state_dict(), whole)
            whole.replace(path)
        net.load_state_dict(torch.load(path, weights_only=True))
        if how.freeze:
            freeze(net)
        return net.eval()
