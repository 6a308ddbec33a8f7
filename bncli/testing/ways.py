"""The ways in which an implementation may compute BatchNorm: `Way()` is PyTorch's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from bncli.light import dataclass

Root = Literal["inside", "outside", "none", "largest", "unscaled"]
"""1/sqrt(var + eps), 1/(sqrt(var) + eps), 1/(var + eps), 1/sqrt(max(var, eps)), or 1."""

Source = Literal["own", "batch", "stored", "updated", "fresh", "fresh if none"]
"""Whose statistics normalise: those of the mode, the batch's, the stored ones, the stored ones
after this batch, 0 and 1, or these where there are no stored ones.
"""

Groups = Literal["channel", "sample", "places", "features", "all", "last"]
"""Which values have a mean of their own: those of a channel; of a channel in a sample; of a channel
at a place, over samples; of a sample; all; or those with one index on the last axis.
"""

Affine = Literal[
    "", "no weight", "no bias", "neither", "bias first", "1 + weight", "swapped", "minus bias"
]


@dataclass(frozen=True, slots=True)
class Forward:
    """How the output is made, in one mode. `eps` None is the given one."""

    source: Source = "own"
    groups: Groups = "channel"
    ddof: int = 0
    centered: bool = True
    mean_square: bool = False
    eps: float | None = None
    eps_for_0: float | None = None
    root: Root = "inside"
    stored: Literal["", "swapped", "invstd", "of invstd"] = ""
    affine: Affine = ""


Variance = Literal["unbiased", "biased", "inverted", "keras2", "std", "biased std", "squares"]
"""What enters running_var: "inverted" is the biased one times (n - 1) / n."""


@dataclass(frozen=True, slots=True)
class Update:
    """How the buffers are updated. `momentum` None is the given one; `weighs` says of what.

    `cumulative` is what stands in the place of the momentum None: 1 over n, the number of batches
    with this one, or over another number, or a momentum. `within` takes the mean of the variances
    within samples. Where they are not `judged`, any values will do.
    """

    variance: Variance = "unbiased"
    kept_eps: bool = False
    weighs: Literal["new", "old", "old if given"] = "new"
    momentum: float | None = None
    momentum_for_0: float | None = None
    cumulative: float | Literal["n", "n - 1", "n + 1"] = "n"
    when: Literal["training", "never", "always"] = "training"
    of: Literal["both", "mean", "var"] = "both"
    twice: bool = False
    undamped: bool = False
    within: bool = False
    judged: bool = True
    counted: Literal["training", "never", "always", "with values"] = "training"


@dataclass(frozen=True, slots=True)
class Backward:
    """How the gradients are made."""

    batch: Literal["whole", "none", "no mean", "no variance", "always"] = "whole"
    weight: bool = True
    means: bool = False
    centered: bool = True
    ddof: int = 0


@dataclass(frozen=True, slots=True)
class Way:
    """One way to compute a layer. What is said of `forward` holds in the mode of its name.

    `loss` says how digits are lost: "one pass", or by which dtype's arithmetic. `spreads`,
    `skips_nan`, `empty_spoils`, `one_value_is_nan` and `layout_breaks` are what becomes of NaN, an
    empty batch, one value a channel and an unusual layout; `changes_input`, `detached` and
    `other_dtype` allow that the input is overwritten, that autograd gives no gradients, and that
    the output has another dtype.
    """

    train: Forward = Forward()
    evaluate: Forward = Forward()
    update: Update = Update()
    backward: Backward = Backward()
    loss: str = ""
    spreads: bool = False
    skips_nan: bool = False
    empty_spoils: bool = False
    one_value_is_nan: bool = False
    layout_breaks: bool = False
    changes_input: bool = False
    detached: bool = False
    other_dtype: bool = False

    def changed(self, changes: Mapping[str, Any]) -> Way:
        """With these values by name, "update.of" for one inside. Raises KeyError for none."""
        made = self
        for path, value in changes.items():
            part, _, name = path.partition(".")
            if name:
                value = replace(getattr(made, part), **{name: value})  # noqa: PLW2901  # one level up
            made = replace(made, **{part: value})
        return made


PYTORCH = Way()
