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
    """A metric that is also taken of outputs which are paired with the next sample's batch entry.

    What is right must be better than that, which shows whether more or less is better. Batches of
    one sample have no such pairs and are left out.
    """

    def __init__(self, metric: Metric) -> None:
        self._metric = metric
        self._pairs: list[tuple[float, float]] = []
        self._fails = False

    def __call__(self, output: Any, batch: Any) -> Any:
        """The metric itself."""
        right = self._metric(output, batch)
        if not self._fails:
            try:
                wrong = self._metric(_rolled(output), batch)
                self._pairs.append((float(right), float(wrong)))
            except _SingleError:
                pass
            except Exception:  # noqa: BLE001  # the user's code, asked what it was not written for
                self._fails = True
        return right

    @property
    def worse(self) -> float | None:
        """What the metric of wrong pairs is more than that of right ones: the batches' mean.

        None where a batch failed, or where they may differ by chance: where the mean of the
        differences is not CLEAR times its standard error, or, of a few batches, not all of them are
        one way and large.
        """
        if self._fails or not self._pairs:
            return None
        right, wrong = np.array(self._pairs).T
        apart = wrong - right
        if len(apart) >= FEW:
            error = apart.std(ddof=1) / math.sqrt(len(apart))
            clear = abs(apart.mean()) > CLEAR * error
        else:
            large = LARGE / math.sqrt(len(apart)) * np.maximum(np.abs(right), np.abs(wrong))
            clear = bool(np.all(np.abs(apart) > large))
            clear = clear and abs(np.sign(apart).sum()) == len(apart)
        return float(apart.mean()) if clear else None


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
