"""The update of running_mean and running_var after a batch, as `torch.nn.BatchNorm` does it."""

from __future__ import annotations

from bncli.light import np
from bncli.model import BatchNormSettings, ChannelStats, RunningStats


def update_factor(momentum: float | None, num_batches_tracked: int) -> float:
    """The weight of the new batch, once the counter stands at `num_batches_tracked`.

    With momentum None every batch has the same weight: 1/num_batches_tracked.
    """
    return 1.0 / num_batches_tracked if momentum is None else momentum


def update(before: RunningStats, stats: ChannelStats, settings: BatchNormSettings) -> RunningStats:
    """The buffers after a forward pass over a batch with these statistics.

    running = (1 - a) * running + a * batch with a = `update_factor`, and the unbiased variance
    for running_var (Ioffe and Szegedy 2015, algorithm 2, step 10). Evaluation changes nothing.
    """
    if not (settings.training and settings.track_running_stats):
        return before
    tracked = before.num_batches_tracked + 1
    factor = update_factor(settings.momentum, tracked)
    with np.errstate(invalid="ignore", over="ignore"):
        return RunningStats(
            running_mean=(1 - factor) * before.running_mean + factor * stats.mean,
            running_var=(1 - factor) * before.running_var + factor * stats.unbiased_var,
            num_batches_tracked=tracked,
        )
