"""What several of these tests have in common."""

from __future__ import annotations

NAMES = ["BatchNorm", "LayerNorm", "InstanceNorm", "GroupNorm", "RMSNorm"]
