"""The values that flow between the floors: frozen, named as PyTorch and NumPy name them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.model.closeness import ChannelCloseness, Closeness
from bncli.model.layers import (
    BatchNormLayer,
    BatchNormModule,
    BatchNormSettings,
    BatchNormState,
    RunningStats,
    StoredFront,
    StoredLayer,
)
from bncli.model.statistics import ChannelStats
from bncli.model.tensors import TensorFile, TensorRef

if TYPE_CHECKING:
    from bncli.model.arrays import FloatArray as FloatArray
    from bncli.model.arrays import IntArray as IntArray

__all__ = [
    "BatchNormLayer",
    "BatchNormModule",
    "BatchNormSettings",
    "BatchNormState",
    "ChannelCloseness",
    "ChannelStats",
    "Closeness",
    "RunningStats",
    "StoredFront",
    "StoredLayer",
    "TensorFile",
    "TensorRef",
]
