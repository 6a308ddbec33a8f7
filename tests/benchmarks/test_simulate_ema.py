"""The recursion over many steps against stepping the module."""

import time

import numpy as np
import pytest
import torch

from bncli.running_stats.collect import Collector
from bncli.running_stats.frameworks import convention
from bncli.running_stats.simulation import Course, simulate

CHANNELS, BATCHES = 64, 100
PYTORCH = convention("pytorch")


def course(steps):
    order = np.random.default_rng(0)
    return Course(lambda: (order.permutation(BATCHES) for _ in range(steps // BATCHES)), steps, 0.1)


def table(dtype):
    rng = np.random.default_rng(0)
    collector = Collector(BATCHES, CHANNELS, dtype)
    for _ in range(BATCHES):
        collector.add(rng.standard_normal((32, CHANNELS), np.float32))
    return collector.table()


def stepped(dtype, steps):
    """A loop over the module, as a script would write it."""
    module = torch.nn.BatchNorm1d(CHANNELS, dtype=dtype)
    batches = [torch.randn(32, CHANNELS, dtype=dtype) for _ in range(BATCHES)]
    torch.set_num_threads(1)

    def loop():
        with torch.no_grad():
            for step in range(steps):
                module(batches[step % BATCHES])

    return loop


@pytest.mark.parametrize(
    ("dtype", "steps", "wanted"), [("float64", 1_000_000, 30.0), ("float32", 200_000, 4.0)]
)
def test_many_steps(dtype, steps, wanted, race):
    shown = np.unique(np.geomspace(1, steps, 1000).round().astype(int))
    batches = table(dtype)
    race(
        f"{steps} steps of {CHANNELS} channels, {dtype} buffers",
        1,
        lambda: simulate(batches, PYTORCH, course(steps), shown, range(CHANNELS)),
        {f"stepping a {dtype} module": (stepped(getattr(torch, dtype), steps), wanted)},
        values=steps * CHANNELS,
        rounds=2,
    )


def test_another_convention_costs_no_statistics(race):
    """The batches' statistics, beside a simulation of one epoch over them."""
    batches = [
        np.random.default_rng(i).standard_normal((16, 64, 28, 28), np.float32) for i in range(9)
    ]

    def collect():
        collector = Collector(len(batches), CHANNELS, "float32")
        for x in batches:
            collector.add(x)
        return collector.table()

    made = collect()
    order = np.arange(len(batches))
    once = Course(lambda: iter([order]), len(order), 0.1)
    race(
        "one more convention over 9 batches (16, 64, 28, 28)",
        1,
        lambda: simulate(made, PYTORCH, once, order + 1, range(CHANNELS)),
        {"the batches' statistics": (collect, None)},
        values=sum(x.size for x in batches),
        rounds=3,
    )


def test_the_whole_command(rows):
    """What it takes from the command line, the start of Python included."""
    import subprocess
    import sys

    from tests.benchmarks.conftest import Row

    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "bncli", "simulate-ema", "--generate", "32,64", "--batches", "100",
         "--epochs", "10000", "--buffer-dtype", "float64", "-q"],
        check=True,
    )  # fmt: skip
    took = time.perf_counter() - begun
    rows.append(Row("simulate-ema, a million steps of 64", "-", "1", "", f"{took:.2f} s", None))
