"""PyTorch's CPU arithmetic, repeated rounding by rounding.

`statistics` has the mean and variance of every dtype, for tolerances; `float32` the whole forward
pass of a float32 module: batch statistics, invstd, the folded transform and the running update.
"""

from __future__ import annotations

from bncli.pytorch_cpu.statistics import CpuStatistics, cpu_statistics

__all__ = ["CpuStatistics", "cpu_statistics"]
