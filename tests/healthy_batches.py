"""Random batches, and running statistics that were trained on such batches: nothing is wrong."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bncli.model import BatchNormSettings, ChannelStats, RunningStats
from bncli.moments import channel_stats, merge
from bncli.report import Finding
from bncli.rulebook.batch import inputs_findings
from bncli.rulebook.stored_batch import stored_batch_findings
from bncli.running_stats.scatter import f_ratio_of_parts

KINDS = ("normal", "uniform", "exponential", "lognormal", "relu", "sparse", "heavy", "binary")
SHAPES = ((), (1,), (7,), (30,), (3, 3), (8, 8), (4, 4, 2))


@dataclass(frozen=True)
class Population:
    """Samples of one kind: values go together within a sample as `shared` and `smooth` say."""

    kind: str
    channels: int
    rest: tuple[int, ...]
    shared: float
    smooth: bool
    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def random(cls, rng: np.random.Generator) -> Population:
        channels = int(rng.integers(1, 40))
        rest = SHAPES[rng.integers(len(SHAPES))]
        return cls(
            str(rng.choice(KINDS)),
            channels,
            rest,
            float(rng.choice([0.0, 0.3, 1.0, 3.0])),
            bool(rng.integers(2)),
            rng.normal(0, 3, channels),
            10 ** rng.uniform(-3, 3, channels),
        )

    def draw(self, rng: np.random.Generator, number: int) -> np.ndarray:
        """Samples (number, channels, ...): values around a level, their own and the sample's."""
        x = rng.normal(size=(number, self.channels, *self.rest))
        if self.smooth:
            for axis in range(2, x.ndim):
                x = (x + np.roll(x, 1, axis) + np.roll(x, 2, axis)) / np.sqrt(3)
        level = (number, self.channels, *(1,) * len(self.rest))
        x = x + self.shared * rng.normal(size=level)
        x += self.shared / 2 * rng.normal(size=(number, *(1,) * (x.ndim - 1)))  # its brightness
        x /= np.sqrt(1 + 1.25 * self.shared**2)
        x = {
            "normal": lambda z: z,
            "uniform": np.tanh,
            "exponential": lambda z: -np.log1p(-0.999999 * _uniform(z)),
            "lognormal": np.exp,
            "relu": lambda z: np.maximum(z, 0),
            "sparse": lambda z: np.maximum(z - 1.5, 0),
            "heavy": lambda z: np.sinh(1.5 * z),
            "binary": lambda z: (z > 1).astype(float),
        }[self.kind](x)
        along = (self.channels, *(1,) * len(self.rest))
        return x * self.std.reshape(along) + (self.mean * self.std).reshape(along)


def _uniform(z: np.ndarray) -> np.ndarray:
    """The normal distribution's own, nearly: logistic."""
    return 1 / (1 + np.exp(-1.702 * z))


@dataclass(frozen=True)
class Healthy:
    """Inputs, and the running statistics that training on their like has left."""

    inputs: list[np.ndarray]
    running: RunningStats
    settings: BatchNormSettings
    weight: np.ndarray
    what: str


def healthy(seed: int) -> Healthy:
    """One of the random configurations; the same for the same seed."""
    rng = np.random.default_rng(seed)
    population = Population.random(rng)
    number = int(rng.choice([2, 3, 4, 8, 16, 32, 64]))
    momentum = [0.01, 0.1, 0.3, None][rng.integers(4)]
    steps = {0.01: 500, 0.1: 100, 0.3: 60, None: 100}[momentum]
    if population.channels * int(np.prod(population.rest)) * number * steps > 3e7:
        number = min(number, 8)
    mean, var = np.zeros(population.channels), np.ones(population.channels)
    for step in range(steps):
        x = population.draw(rng, number)
        axes = (0, *range(2, x.ndim))
        new = 1 / (step + 1) if momentum is None else momentum
        count = x.size // x.shape[1]
        if momentum is not None and step == 0:
            mean, var = x.mean(axes), x.var(axes) * count / (count - 1)  # no initial value is left
        mean = (1 - new) * mean + new * x.mean(axes)
        var = (1 - new) * var + new * x.var(axes) * count / (count - 1)
    several = int(rng.choice([1, 1, 2, 5]))
    inputs = [population.draw(rng, number) for _ in range(several)]
    if rng.integers(2):  # sorted within the batch, which is no fault of it
        inputs = [x[np.argsort(x.reshape(len(x), -1).mean(1))] for x in inputs]
    weight = rng.normal(0, 1, population.channels) if rng.integers(2) else np.ones(len(mean))
    return Healthy(
        [x.astype(np.float32) for x in inputs],
        RunningStats(mean, var, steps),
        BatchNormSettings(momentum=momentum, training=False),
        weight,
        f"seed {seed}: {population.kind} {several} x {inputs[0].shape}, momentum {momentum}, "
        f"shared {population.shared:g}",
    )


def findings_of(case: Healthy, running: RunningStats | None = None) -> list[Finding]:
    """What the rules on samples say of it, or of it beside other statistics."""
    parts = [channel_stats(x, sample_axis=0, threads=1) for x in case.inputs]
    whole: ChannelStats = merge(parts) if len(parts) > 1 else parts[0]
    sorted_ones, found = None, []
    if len(parts) > 1:
        ratio = f_ratio_of_parts(parts, whole)
        between = sum(p.count * (p.mean - whole.mean) ** 2 for p in parts) / whole.count
        sorted_ones = ratio.beyond_chance(between, whole.var, whole.mean)
        found += inputs_findings(np.zeros(whole.num_features), ratio, sorted_ones)
    return found + stored_batch_findings(
        whole, running or case.running, case.weight, case.settings, parts, sorted_ones
    )
