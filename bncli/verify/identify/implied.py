"""What an output shows of its normalisation, channel by channel, without a hypothesis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.light import dataclass, np
from bncli.verify.identify.hypotheses import ChannelMap
from bncli.verify.identify.pair import furthest
from bncli.verify.identify.search import LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.model import FloatArray
    from bncli.verify.identify.search import Seen


@dataclass(frozen=True, slots=True)
class Implied:
    """y = x * scale + shift, the best such line in each channel; arrays (num_features,).

    `mean` and `var` are what would have normalised the input, with the weight, bias and eps that
    are known or else 1, 0 and the expected eps. `off` is the most that the line leaves, and
    `affine` says whether that may be rounding. What a channel does not tell is NaN.
    """

    scale: FloatArray
    shift: FloatArray
    mean: FloatArray
    var: FloatArray
    off: FloatArray
    affine: NDArray[Any]

    @classmethod
    def of(cls, seen: Seen) -> Implied:
        """What the pair shows, seen in this way."""
        fit, known = seen.fit, seen.known
        weight = 1.0 if known.weight is None else known.weight
        bias = 0.0 if known.bias is None else known.bias
        line = ChannelMap(fit.stats.mean, fit.slope, fit.y_stats.mean)
        off = furthest(seen.view, [line], fit.ok)[0]
        with np.errstate(all="ignore"):
            affine = fit.ok & (off <= seen.tolerated(line, training=True)[LEVELS - 1])
            told = fit.ok & (fit.stats.max > fit.stats.min)
            scale = np.where(told, fit.slope, np.nan)
            shift = fit.y_stats.mean - scale * fit.stats.mean
            mean = np.where(scale != 0, fit.stats.mean - (fit.y_stats.mean - bias) / scale, np.nan)
            var = (weight / scale) ** 2 - known.eps
            var = np.where(np.isfinite(var) & (np.sign(weight) == np.sign(scale)), var, np.nan)
        off = np.where(fit.ok, off, np.nan)
        mean, var = (np.where(affine, values, np.nan) for values in (mean, var))
        return cls(scale, shift, mean, var, off, affine)

    @property
    def worst(self) -> int | None:
        """The channel that is furthest from a line, None where each is one."""
        if not (~self.affine & np.isfinite(self.off)).any():
            return None
        return int(np.nan_to_num(self.off, nan=-1.0).argmax())

    @property
    def tells_nothing(self) -> bool:
        """Whether no channel of the input has two values, through which a line could go."""
        return bool(np.isnan(self.scale).all())
