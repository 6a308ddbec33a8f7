"""Each fault of a live model, made by what makes it.

A fault is a function from a `Bench` (an architecture, a seed, its trained nets) to a `Case`: a
model as its user has it, and the batches that the user gives. `FAULTS` says which causes must be
named, the first one first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from bncli.live.batch import Batch
from tests.live.faults.data import SIZE, Pictures, standardised
from tests.live.faults.nets import ARCHITECTURES
from tests.live.faults.training import Store, drawn, norms

COUNT = 512
"""How many pictures are captured."""

PAIRS = 64
"""How many of them in batches of two, which take longer."""


@dataclass(frozen=True)
class Case:
    """`layer` is the right one, where there is one; `truth` has what the pictures show."""

    model: nn.Module
    batches: list[Batch]
    truth: list[Pictures]
    layer: str | None = None
    frozen: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bench:
    """What a fault is made of: an architecture, a seed, and the nets trained for them."""

    architecture: str
    seed: int
    store: Store

    def net(self, recipe: str = "base", seed: int | None = None) -> nn.Module:
        return self.store.net(self.architecture, recipe, self.seed if seed is None else seed)

    @property
    def names(self) -> type:
        """The architecture's class, which names the layers that faults are about."""
        return ARCHITECTURES[self.architecture]

    @property
    def generator(self) -> torch.Generator:
        """The randomness of the captured pictures, never that of training."""
        return torch.Generator().manual_seed(9000 + self.seed)

    def truth(self, batch: int = 32, scanners: str = "alike", count: int = COUNT) -> list[Pictures]:
        """Batches of pictures that the nets have not seen."""
        generator = self.generator
        return [drawn(batch, generator, scanners) for _ in range(count // batch)]

    def case(
        self,
        model: nn.Module,
        truth: list[Pictures] | None = None,
        prepare: Callable[[torch.Tensor], torch.Tensor] = standardised,
        layer: str | None = None,
        frozen: tuple[str, ...] = (),
    ) -> Case:
        """A case whose pictures are what `prepare` makes of them."""
        truth = self.truth() if truth is None else truth
        return Case(model, batches([prepare(t.images) for t in truth], truth), truth, layer, frozen)


def batches(inputs: list[torch.Tensor], truth: list[Pictures] | None = None) -> list[Batch]:
    """As the source of data gives them."""
    wholes = inputs if truth is None else [(x, t) for x, t in zip(inputs, truth, strict=True)]
    return [
        Batch((x,), {}, whole, len(x), f"batch {number}")
        for number, (x, whole) in enumerate(zip(inputs, wholes, strict=True))
    ]


@dataclass(frozen=True)
class Fault:
    """`causes` must be named, the first one first; it cannot be made in the nets of `without`."""

    causes: tuple[str, ...]
    make: Callable[[Bench], Case]
    without: tuple[str, ...] = ()


FAULTS: dict[str, Fault] = {}


def fault(*causes: str, without: tuple[str, ...] = ()):
    """Enter a function into FAULTS, under its own name."""

    def enter(make):
        FAULTS[make.__name__.replace("_", "-")] = Fault(causes, make, without)
        return make

    return enter


# What goes in.


@fault("input scale")
def not_divided_by_255(bench):
    """ToTensor is missing in front of Normalize."""
    return bench.case(bench.net(), prepare=lambda x: standardised(x * 255), layer=bench.names.FIRST)


@fault("input scale")
def whole_numbers(bench):
    """A net for pictures in [0, 1] is given the bytes as they are."""
    return bench.case(bench.net("raw"), prepare=lambda x: x * 255, layer=bench.names.FIRST)


@fault("input scale")
def not_standardised(bench):
    """Normalize is missing."""
    return bench.case(bench.net(), prepare=lambda x: x, layer=bench.names.FIRST)


@fault("other domain")
def other_domain_blurred(bench):
    """Another lens: blurred, with less contrast and more light."""

    def blurred(x):
        x = functional.avg_pool2d(
            functional.pad(standardised(x), (1, 1, 1, 1), mode="reflect"), 3, 1
        )
        return x * 0.8 + 0.5

    return bench.case(bench.net(), prepare=blurred, layer=bench.names.FIRST)


@fault("other domain")
def other_domain_noisy(bench):
    """Another sensor: noise."""
    noise = torch.Generator().manual_seed(bench.seed)

    def noisy(x):
        return standardised(x) + 0.8 * torch.randn(x.shape, generator=noise)

    return bench.case(bench.net(), prepare=noisy, layer=bench.names.FIRST)


@fault("padding")
def padded(bench):
    """Narrow pictures, padded with zeros to the size that the net was trained on."""

    def pad(x):
        half = SIZE // 2
        return functional.pad(standardised(x)[..., :half], (0, SIZE - half))

    return bench.case(bench.net(), prepare=pad)


# How the statistics came about.


@fault("momentum")
def momentum_99(bench):
    """Keras's momentum of 0.99, taken over into PyTorch."""
    return bench.case(bench.net("momentum"))


@fault("batches differ")
def one_scanner_a_batch(bench):
    """Each batch from one device."""
    return bench.case(bench.net("scanners"), bench.truth(scanners="batch"))


# A BatchNorm1d layer gives 1 and -1 of two samples, and such a net learns nothing.
@fault("batch size", without=("plain",))
def batches_of_two(bench):
    return bench.case(bench.net("two"), bench.truth(batch=2, count=PAIRS))


@fault("momentum", "batches differ")
def momentum_99_and_one_scanner_a_batch(bench):
    return bench.case(bench.net("momentum-scanners"), bench.truth(scanners="batch"))


@fault("batch size", "batches differ", without=("plain",))
def batches_of_two_from_one_scanner(bench):
    truth = bench.truth(batch=2, scanners="batch", count=PAIRS)
    return bench.case(bench.net("two-scanners"), truth)


@fault("momentum", "batch size", "batches differ", without=("plain",))
def momentum_99_and_batches_of_two_from_one_scanner(bench):
    truth = bench.truth(batch=2, scanners="batch", count=PAIRS)
    return bench.case(bench.net("momentum-two-scanners"), truth)


@fault("dropout")
def dropout_before_batchnorm(bench):
    return bench.case(bench.net("dropout"), layer=bench.names.DROPPED)


# Whose statistics they are.


@fault("other weights")
def averaged_without_update_bn(bench):
    """AveragedModel keeps the running statistics of the live model."""
    return bench.case(bench.net("average"))


@fault("other weights")
def stale_by_200_steps(bench):
    """A file of parameters alone is loaded over an older checkpoint's buffers."""
    net = bench.net()
    net.load_state_dict(dict(bench.net("later").named_parameters()), strict=False)
    return bench.case(net)


@fault("other weights")
def statistics_of_another_checkpoint(bench):
    """A file of parameters alone is loaded over another training's buffers."""
    net = bench.net(seed=bench.seed + 50)
    net.load_state_dict(dict(bench.net().named_parameters()), strict=False)
    return bench.case(net)


@fault("spoilt")
def one_layer_spoilt(bench):
    """In the last step of training, the input of one layer explodes."""
    net = bench.net().train()
    layer = net.get_submodule(bench.names.INNER)
    with layer.register_forward_pre_hook(lambda _, inputs: (inputs[0] * 16,)), torch.no_grad():
        net(standardised(drawn(32, bench.generator).images))
    return bench.case(net.eval(), layer=bench.names.INNER)


@fault("reset")
def all_layers_reset(bench):
    net = bench.net()
    for module in norms(net).values():
        module.reset_running_stats()
    return bench.case(net)


@fault("reset")
def one_layer_reset(bench):
    net = bench.net()
    net.get_submodule(bench.names.INNER).reset_running_stats()
    return bench.case(net, layer=bench.names.INNER)


@fault("frozen")
def frozen_and_fine_tuned(bench):
    """Fine-tuned on another device's pictures, with the statistics of the first."""
    return bench.case(bench.net("frozen"), bench.truth(scanners="other"))


# How the layers run.


@fault("batch statistics")
def without_running_statistics(bench):
    return bench.case(bench.net("untracked"))


def variant(bench, **members):
    """The trained net, of a subclass of its class."""
    net = bench.net()
    net.__class__ = type("Variant", (type(net),), members)
    return net


@fault("left in training")
def train_overridden(bench):
    """`train` puts one layer back into training mode, whatever the mode."""
    name = bench.names.INNER

    def train(self, mode=True):
        bench.names.train(self, mode)
        self.get_submodule(name).train()
        return self

    return bench.case(variant(bench, train=train).eval(), layer=name)


@fault("left in training")
def train_called_in_forward(bench):
    """`forward` puts one layer into training mode."""
    name = bench.names.INNER

    def forward(self, x):
        self.get_submodule(name).train()
        return bench.names.forward(self, x)

    return bench.case(variant(bench, forward=forward), layer=name)


@fault("left in training")
def one_layer_in_training(bench):
    """An instance in evaluation mode but for one layer."""
    net = bench.net()
    net.get_submodule(bench.names.INNER).train()
    return bench.case(net, layer=bench.names.INNER)
