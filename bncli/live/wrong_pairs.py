"""Which way a metric is better: outputs that are paired with the wrong samples are worse."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bncli.light import np

if TYPE_CHECKING:
    from bncli.live.session import Metric

CLEAR, FEW, LARGE = 3.0, 5, 0.5
"""How many standard errors the metric of wrong pairs must be from that of right ones; the number of
batches that give such an error; and the part of the metric that it must be in a single batch, less
by the root of their number with a few."""


class WrongPairs:
    """A metric that is also taken of outputs which are paired with another sample's batch entry.

    What is right must be better than that, which shows whether more or less is better. A batch is
    paired with the outputs of the first one, as samples of one batch may be alike, in data that
    are sorted by class for example; where it is the first, or larger, with its own outputs moved on
    by one sample. Single samples that have no such pair are left out.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._first: Any = None
        self._pairs: list[tuple[float, float]] = []
        self._fails = False

    def __call__(self, output: Any, batch: Any) -> Any:
        """The metric itself."""
        right = self._metric(output, batch)
        if not self._fails:
            try:
                wrong = self._metric(self._other(output), batch)
                self._pairs.append((float(right), float(wrong)))
            except _SingleError:
                pass
            except Exception:  # noqa: BLE001  # the user's code, asked what it was not written for
                self._fails = True
        return right

    def _other(self, output: Any) -> Any:
        """Outputs of other samples, as many."""
        if self._first is not None:
            cut = _cut(self._first, output)
            return _rolled(output) if cut is None else cut
        self._first = _copied(output)
        return _rolled(output)

    @property
    def right(self) -> float:
        """The mean over the batches of right pairs."""
        return float(np.mean([right for right, _ in self._pairs]))

    @property
    def worse(self) -> float | None:
        """What the metric of wrong pairs is more than that of right ones: the batches' mean.

        None where a batch failed, or where they may differ by chance.
        """
        return self._told[0] if self._told is not None else None

    @property
    def clearness(self) -> float:
        """How many standard errors `worse` is from 0; 0 where it is None."""
        return self._told[1] if self._told is not None else 0.0

    @property
    def _told(self) -> tuple[float, float] | None:
        """The mean difference, and how many standard errors that is; None if it may be chance.

        That is where the mean of the differences is not CLEAR times its standard error, or, of a
        few batches, not all of them are one way and large.
        """
        if self._fails or not self._pairs:
            return None
        right, wrong = np.array(self._pairs).T
        apart = wrong - right
        mean = float(apart.mean())
        if len(apart) >= FEW:
            error = float(apart.std(ddof=1)) / math.sqrt(len(apart))
            clear = abs(mean) > CLEAR * error
            return (mean, abs(mean) / error if error else math.inf) if clear else None
        large = LARGE / math.sqrt(len(apart)) * np.maximum(np.abs(right), np.abs(wrong))
        clear = bool(np.all(np.abs(apart) > large))
        return (mean, CLEAR) if clear and abs(np.sign(apart).sum()) == len(apart) else None


def clearest(*passes: WrongPairs) -> WrongPairs | None:
    """The pass in which wrong pairs differ most clearly; None where none does, or two disagree."""
    told = [each for each in passes if each.worse]
    if len({(each.worse or 0.0) > 0 for each in told}) != 1:
        return None
    return max(told, key=lambda each: each.clearness)


class _SingleError(Exception):
    """A batch has one sample; it never leaves this module."""


def _rolled(output: Any) -> Any:
    """The output with its samples moved on by one.

    Raises _SingleError for one sample, and ValueError where the samples are not known.
    """
    import torch

    if isinstance(output, torch.Tensor):
        if not output.ndim:
            raise ValueError("no samples")
        if len(output) == 1:
            raise _SingleError
        return output.roll(1, 0)
    if isinstance(output, Mapping):
        return type(output)({key: _rolled(value) for key, value in output.items()})  # type: ignore[call-arg]  # as dict
    if type(output) in {list, tuple}:
        return type(output)(map(_rolled, output))
    raise ValueError("no tensor")


def _copied(output: Any) -> Any:
    """The output, in memory of its own: a model may write into what it gave before."""
    import torch

    if isinstance(output, torch.Tensor):
        return output.detach().clone()
    if isinstance(output, Mapping):
        return type(output)({key: _copied(value) for key, value in output.items()})  # type: ignore[call-arg]  # as dict
    return type(output)(map(_copied, output)) if type(output) in {list, tuple} else output


def _cut(first: Any, output: Any) -> Any:
    """As many samples of `first` as `output` has; None where `first` has fewer, or other shapes."""
    import torch

    if isinstance(output, torch.Tensor):
        fits = isinstance(first, torch.Tensor) and first.ndim and output.ndim
        if not fits or len(first) < len(output) or first.shape[1:] != output.shape[1:]:
            return None
        return first[: len(output)]
    if isinstance(output, Mapping) and isinstance(first, Mapping):
        cut = {key: _cut(first.get(key), value) for key, value in output.items()}
        if any(part is None for part in cut.values()):
            return None
        return type(output)(cut)  # type: ignore[call-arg]  # as dict
    if type(output) in {list, tuple} and type(first) is type(output) and len(first) == len(output):
        parts = list(map(_cut, first, output))
        return None if any(part is None for part in parts) else type(output)(parts)
    return None
