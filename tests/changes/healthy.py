"""Pairs of consecutive checkpoints of ordinary training, in which nothing went wrong.

Each function gives the content of two files, as users save them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from tests.changes.trainings import (
    LAYERS,
    MORE,
    Net,
    Optimizer,
    batches,
    freeze,
    fresh,
    halved,
    sgd,
    state_of,
    train,
    trained,
)

Content = dict[str, Any]


@dataclass(frozen=True)
class Healthy:
    """A name, and what makes the first file and the second."""

    name: str
    make: Callable[[], tuple[Content, Content]]

    def __str__(self) -> str:
        return self.name


def adam(lr: float = 1e-3) -> Optimizer:
    return lambda parameters: torch.optim.Adam(parameters, lr)


def adamw(lr: float = 1e-3) -> Optimizer:
    return lambda parameters: torch.optim.AdamW(parameters, lr, weight_decay=0.05)


def warmup_and_cosine(step: int) -> float:
    """The factor of a learning rate that rises for 10 batches and falls as a cosine."""
    return (
        (step + 1) / 10 if step < 10 else 0.5 * (1 + math.cos(math.pi * (step - 10) / (MORE - 10)))
    )


def on(model: Net | None = None, **settings: Any) -> Callable[[], tuple[Content, Content]]:
    """Training as `train` does it, of a network or of the trained one."""

    def make() -> tuple[Content, Content]:
        ours = copy.deepcopy(model) if model is not None else trained()
        first = state_of(ours)
        train(ours, **settings)
        return first, state_of(ours)

    return make


def in_half(make: Callable[[], tuple[Content, Content]]) -> Callable[[], tuple[Content, Content]]:
    """Trained in float32, saved in float16."""

    def made() -> tuple[Content, Content]:
        first, second = make()
        return halved(first), halved(second)

    return made


def zero_branches() -> Net:
    """The last weight of each residual branch begins as 0."""
    model = fresh(3)
    for name in ("layer1.0.bn2", "layer2.0.bn2", "layer3.0.bn2"):
        nn.init.zeros_(model.get_submodule(name).weight)
    return model


def dead(layer: str = "layer3.0.bn1") -> Net:
    """A layer before a ReLU that no input passes: its gradient is 0."""
    model = trained()
    nn.init.constant_(model.get_submodule(layer).bias, -12.0)
    return model


def from_zero(model: Net) -> Callable[[], tuple[Content, Content]]:
    """The checkpoint of the initialised network, and one of it trained."""
    return on(model)


def backbone() -> list[str]:
    return ["conv1", "bn1", "layer1", "layer2", "layer3"]


def frozen_backbone(parts: list[str]) -> Callable[[], tuple[Content, Content]]:
    """Some of the network is in eval() with requires_grad False, the rest trains."""

    def make() -> tuple[Content, Content]:
        model = trained()
        first = state_of(model)
        freeze(*(model.get_submodule(part) for part in parts))
        train(model)
        return first, state_of(model)

    return make


def eval_fine_tuning() -> tuple[Content, Content]:
    """All is optimised in evaluation mode."""
    model = trained().eval()
    first = state_of(model)
    train(model, optimizer=sgd(1e-3))
    return first, state_of(model)


def frozen_norms() -> tuple[Content, Content]:
    """All BatchNorm layers are in evaluation mode and frozen; everything else trains."""
    model = trained()
    first = state_of(model)
    freeze(*(model.get_submodule(layer) for layer in LAYERS))
    train(model, optimizer=sgd(1e-3))
    return first, state_of(model)


class Skips(Net):
    """A branch that only every third batch passes, as in stochastic depth."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        x = self.layer1(functional.relu(self.bn1(self.conv1(x))))
        x = self.layer2(x)
        if not self.training or self.calls % 3 == 0:
            x = self.layer3(x)
        result: torch.Tensor = self.fc(self.head(self.neck(x).mean((2, 3))))
        return result


def skipping() -> tuple[Content, Content]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = Skips()
    train(model, 60)
    first = state_of(model)
    train(model)
    return first, state_of(model)


class Tied(Net):
    """One layer that stands in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.layer3[0].bn2 = self.layer3[0].bn1


def tied() -> tuple[Content, Content]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(6)
        model = Tied()
    train(model, 60)
    first = {name: value.clone() for name, value in model.state_dict().items()}
    for leaf in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        first[f"layer3.0.bn2.{leaf}"] = first[
            f"layer3.0.bn1.{leaf}"
        ]  # one storage, as in the model
    train(model)
    return first, dict(model.state_dict())


def resumed() -> tuple[Content, Content]:
    """What is needed to resume is in the file, too."""
    model = trained()
    files = []
    for epoch in range(2):
        using = train(model, seed=epoch + 1)
        assert using is not None
        files.append(
            {
                "epoch": epoch,
                "model": state_of(model),
                "optimizer": copy.deepcopy(using.state_dict()),
                "best": 0.5,
            }
        )
    return files[0], files[1]


def with_average(*, buffers: bool) -> Callable[[], tuple[Content, Content]]:
    """An exponential average beside the live network, its buffers averaged or copied."""

    def make() -> tuple[Content, Content]:
        model = trained()
        ema = copy.deepcopy(model)

        def step(_: int) -> None:
            live = dict(model.named_parameters())
            with torch.no_grad():
                for name, value in ema.named_parameters():
                    value.lerp_(live[name], 0.1)
                now = dict(model.named_buffers())
                for name, value in ema.named_buffers():
                    if buffers and value.is_floating_point():
                        value.lerp_(now[name], 0.1)
                    else:
                        value.copy_(now[name])

        files = []
        for epoch in range(2):
            train(model, seed=epoch + 1, each=step)
            files.append({"model": state_of(model), "ema": state_of(ema)})
        return files[0], files[1]

    return make


def with_target() -> tuple[Content, Content]:
    """A target network that takes over the online one at each checkpoint, as in a DQN."""
    model = trained()
    target, files = state_of(model), []
    for epoch in range(3):
        train(model, seed=epoch + 1)
        files.append({"q_net": state_of(model), "q_net_target": target})
        target = state_of(model)
    return files[1], files[2]


def averages() -> dict[str, tuple[Content, Content]]:
    """A network, and an average of it or of it and another time."""
    first, second = trained(), trained()
    ema = copy.deepcopy(second)
    train(second, each=lambda _: lerp(ema, second))
    live = state_of(second)
    mean = {
        name: (values + live[name]) / 2 if values.is_floating_point() else live[name]
        for name, values in state_of(first).items()
    }
    copied = state_of(ema) | dict(second.named_buffers())
    return {
        "the live one, an average": (live, state_of(ema)),
        "the live one, an average with its buffers": (live, copied),
        "one, the mean of two": (state_of(first), mean),
        "one, the mean of two and its statistics": (
            live,
            state_of(averaged_weights(first, second)),
        ),
    }


def lerp(average: nn.Module, live: nn.Module) -> None:
    """One step of an exponential average of all that is a number; counters are copied."""
    now = live.state_dict()
    with torch.no_grad():
        for name, value in average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(now[name], 0.1)
            else:
                value.copy_(now[name])


def averaged_weights(*models: Net) -> nn.Module:
    """Stochastic weight averaging, and update_bn at its end."""
    average = torch.optim.swa_utils.AveragedModel(models[0])
    for model in models:
        average.update_parameters(model)
    torch.optim.swa_utils.update_bn(batches(30, seed=11), average)
    return average.module


HEALTHY = (
    Healthy("SGD", on(optimizer=sgd(0.05, 0.0))),
    Healthy("SGD, lr 0.1, momentum", on(optimizer=sgd(0.1))),
    Healthy("SGD, lr 0.001, weight decay", on(optimizer=sgd(1e-3, 0.9, 5e-4))),
    Healthy("SGD, lr 0.00001", on(optimizer=sgd(1e-5, 0.9))),
    Healthy("Adam", on(optimizer=adam())),
    Healthy("Adam, lr 0.00001", on(optimizer=adam(1e-5))),
    Healthy("AdamW, warmup and cosine", on(optimizer=adamw(), schedule=warmup_and_cosine)),
    Healthy("batches of 4", on(size=4, optimizer=sgd(0.01))),
    Healthy("batches of 64", on(size=64)),
    Healthy("one batch", on(count=1)),
    Healthy("from its initialisation", on(fresh(2))),
    Healthy("zeros as the last weights", on(zero_branches())),
    Healthy("zeros as the last weights, three batches", on(zero_branches(), count=3)),
    Healthy("half weights", in_half(on())),
    Healthy("half weights, lr 0.001", in_half(on(optimizer=sgd(1e-3)))),
    Healthy("half weights, AdamW", in_half(on(optimizer=adamw()))),
    Healthy("a dead layer", on(dead())),
    Healthy("a dead layer, weight decay", on(dead(), optimizer=sgd(0.05, 0.9, 5e-4))),
    Healthy("frozen backbone", frozen_backbone(backbone())),
    Healthy("the last layer alone trains", frozen_backbone([*backbone(), "neck", "head"])),
    Healthy("evaluation mode as a whole", eval_fine_tuning),
    Healthy("frozen norms", frozen_norms),
    Healthy("gradient accumulation", on(every=4)),
    Healthy("a layer that is skipped", skipping),
    Healthy("tied layers", tied),
    Healthy("resumed", resumed),
    Healthy("a target network", with_target),
    Healthy("an average, its buffers copied", with_average(buffers=False)),
    Healthy("an average, its buffers averaged", with_average(buffers=True)),
)
