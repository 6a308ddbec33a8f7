"""The statistics of batches, from which running statistics are simulated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.pytorch_cpu.half import rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray, IntArray
    from bncli.running_stats.conventions import Convention


@dataclass(frozen=True, slots=True)
class BatchTable:
    """The statistics of some batches: `count` (batches,), and `mean` and the biased `var`, both
    float64 (batches, num_features).

    `held_mean` and `held_var_sum`, the same shape, are the mean and the sum of squared deviations
    as PyTorch holds them in buffers of `dtype`, None where that is float64.
    """

    count: IntArray
    mean: FloatArray
    var: FloatArray
    dtype: str = "float64"
    held_mean: NDArray[Any] | None = None
    held_var_sum: NDArray[Any] | None = None

    @property
    def num_features(self) -> int:
        """The number of channels."""
        return int(self.mean.shape[1])

    @property
    def shown(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Mean and biased variance as the buffers' arithmetic has them."""
        if self.held_mean is None or self.held_var_sum is None:
            return self.mean, self.var
        with np.errstate(invalid="ignore"):
            return self.held_mean, self.held_var_sum / self.count.astype(np.float32)[:, np.newaxis]

    def entering(self, convention: Convention, eps: float | None) -> NDArray[Any]:
        """The means and variances that enter the buffers, (batches, 2, num_features)."""
        counts, which = np.unique(self.count, return_inverse=True)
        divisor = np.array(
            [convention.variance_divisor(count, eps) for count in counts.tolist()], np.float64
        )
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            if self.held_mean is None or self.held_var_sum is None:
                factor = (counts / divisor)[which, np.newaxis]
                return np.stack((self.mean, self.var * factor), axis=1)
            inner = "bfloat16" if self.dtype == "bfloat16" else "float32"
            by = rounded(divisor.astype(np.float32), inner)[which, np.newaxis]
            return np.stack((self.held_mean, rounded(self.held_var_sum / by, inner)), axis=1)
