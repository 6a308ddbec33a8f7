"""A judge for those who write a BatchNorm: `check_batchnorm`, for use in pytest and elsewhere."""

from __future__ import annotations

from bncli.testing.check import batchnorm_configurations, check_batchnorm
from bncli.testing.configurations import Configuration
from bncli.testing.verdict import BatchNormMismatch, Summary

__all__ = [
    "BatchNormMismatch",
    "Configuration",
    "Summary",
    "batchnorm_configurations",
    "check_batchnorm",
]
