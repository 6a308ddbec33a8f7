"""NaN and Inf of an output that neither its input, nor the state, nor an overflow accounts for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.light import dataclass, np
from bncli.verify.identify.hypotheses import EVAL, TRAINING, channel_map

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from bncli.verify.identify.hypotheses import Hypothesis
    from bncli.verify.identify.search import Seen


@dataclass(frozen=True, slots=True)
class NotFinite:
    """How many values of an output are NaN and Inf where BatchNorm gives finite ones, of `total`.

    `channels` are those that hold them, in the output's order, and `first` is the index of the
    first one, None where the output was looked at in another layout.
    """

    nan: int
    inf: int
    total: int
    channels: tuple[int, ...]
    num_features: int
    first: tuple[int, ...] | None

    @classmethod
    def of(cls, seen: Seen, explaining: Iterable[Hypothesis]) -> NotFinite | None:
        """What was found in the channels in which all that goes in is finite, None for nothing.

        `explaining` are the hypotheses that explain the other channels. Without any of them every
        number of the state may account for NaN, and under another norm, whose statistics run
        across the channels, so may a NaN of any channel of the input.
        """
        stats, y_stats = seen.fit.stats, seen.fit.y_stats
        ways = list(explaining)
        inside = np.isfinite(stats.mean) & np.isfinite(stats.var)
        if not inside.all() and not all(way.mode in (TRAINING, EVAL) for way in ways):
            return None
        if not inside.all() and not ways:
            return None
        odd = y_stats.nan + y_stats.inf > 0
        odd &= inside & ~_accounted(seen, ways)
        if not odd.any():
            return None
        channels = tuple(np.flatnonzero(odd).tolist())
        return cls(
            int(y_stats.nan[odd].sum()),
            int(y_stats.inf[odd].sum()),
            seen.view.count * seen.view.num_features,
            channels,
            seen.view.num_features,
            None if seen.view.name else y_stats.first_nonfinite[channels[0]],
        )


def _accounted(seen: Seen, ways: list[Hypothesis]) -> NDArray[Any]:
    """The channels in which the state holds NaN or Inf, or the arithmetic may overflow."""
    known, stats = seen.known, seen.fit.stats
    found = np.zeros(seen.view.num_features, bool)
    trailing = [known.trailing_weight, known.trailing_bias]
    if any(values is not None and not np.isfinite(values).all() for values in trailing):
        return ~found
    kind = DTYPES[seen.view.y.dtype]
    largest = DTYPES["float64" if kind.name == "float64" else "float32"].largest
    size = np.maximum(np.abs(stats.min), np.abs(stats.max))
    with np.errstate(all="ignore"):
        # In training mode the squares are added up, in that precision.
        found |= ~(size**2 * stats.count < largest / 4)
        for way in ways:
            if way.mode not in (TRAINING, EVAL):
                continue
            made = channel_map(way, known, stats)
            scale = np.abs(made.scale)
            product = (size + np.abs(made.center)) * np.maximum(scale, 1.0) + np.abs(made.bias)
            found |= ~(product < largest / 4)
            found |= ~((size + np.abs(made.center)) * scale + np.abs(made.bias) < kind.largest)
    if not ways:
        vectors = [known.weight, known.bias, known.running_mean, known.running_var]
        for values in vectors:
            found |= False if values is None else ~np.isfinite(values)
        if known.running_var is not None:
            found |= known.running_var + known.eps <= 0
    return found
