"""A batch as a model takes it, and statistics that its layers are to use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bncli.light import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bncli.model import FloatArray


@dataclass(frozen=True, slots=True)
class Batch:
    """The arguments of one forward pass; `whole` is the batch as the data gave it, for a metric.

    `samples` is the size of the batch axis of its first tensor, and `label` the file or the number
    that says which batch it is.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    whole: Any
    samples: int
    label: str


class Statistics(NamedTuple):
    """What a layer is to have as running_mean and running_var, float64 of shape (num_features,)."""

    mean: FloatArray
    var: FloatArray
