"""bncli verifies and inspects Batch Normalization: statistics, steps, buffers, checkpoints."""

from __future__ import annotations

__version__ = "0.1.0"
