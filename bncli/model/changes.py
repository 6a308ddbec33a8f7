"""What happened to the BatchNorm layers of one file on the way to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum
from typing import TYPE_CHECKING

from bncli.light import dataclass
from bncli.report import Certainty

if TYPE_CHECKING:
    from bncli.model.layers import BatchNormModule
    from bncli.report import Value


class Same(str, Enum):
    """How two tensors compare: bit for bit, up to the rounding of a dtype, or not.

    ROUNDED is said where the dtypes differ and the values do not, too.
    """

    SAME = "same"
    ROUNDED = "rounded"
    MOVED = "moved"


class How(str, Enum):
    """By what two layers were matched.

    NAME is the same name but for wrappers, NAMING the same name as another framework writes it.
    Where names differ, VALUES are those of one of the layer's tensors, or of the convolution in
    front of it, and ORDER the shapes and the order of the layers.
    """

    NAME = "name"
    NAMING = "naming"
    VALUES = "values"
    ORDER = "order"


class State(str, Enum):
    """What happened to a layer; the value is what scripts read.

    STATISTICS moved alone, under the same weight and bias; WEIGHTS moved (the layer's, or those of
    the convolution before it) under the same statistics; COUNTER says that it alone changed.
    RESET statistics are 0 and 1 in the second file alone, EMPTY ones 0 and 0. LOST says that one
    file lacks tensors of the layer, and IMPOSSIBLE that the second has NaN, Inf or a negative
    variance where the first has none.
    """

    IDENTICAL = "identical"
    ROUNDED = "rounded"
    TRAINED = "trained"
    STATISTICS = "statistics-moved"
    WEIGHTS = "weights-moved"
    COUNTER = "counter-moved"
    RESET = "reset"
    EMPTY = "never-filled"
    LOST = "lost"
    IMPOSSIBLE = "impossible"
    CONVENTION = "other-convention"
    ORDER = "other-order"
    FOLDED = "folded"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Found:
    """A state that explains a pair of layers.

    `what` completes the row of the layer, as a phrase of some words without a capital: "unbiased
    for biased variance, n = 128". `detail` are sentences that support it, "" where `what` says it
    all. `numbers` are what shows it, for scripts; a `cause` among them is a short name of the case,
    such as "eps-in-variance". `hint` is the fix, in imperative sentences, "" for none.
    """

    state: State
    what: str = ""
    detail: str = ""
    certainty: Certainty = Certainty.CERTAIN
    numbers: Mapping[str, Value] = field(default_factory=dict)
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Measures:
    """How far two layers are apart, in numbers; each is None where it is not known.

    `batches` is the counter of the second file less that of the first. With z the shift of a mean
    in standard deviations of the first, and the variances taken with eps added, `z_min` and `z_max`
    are the least and largest |z| of a channel, `var_ratio_min` and `var_ratio_max` those of the
    second variance over the first. `weight_change` is the distance of weight and bias relative to
    the size of the first's. `effect` is the largest change of an output, as a root of a mean
    square, in the channel `worst`: |weight| sqrt(z^2 + (s - 1)^2), for activations with the first
    file's statistics that are normalised with the second's, z in the second's standard deviations,
    s the first's over the second's, and the second's weight.
    """

    batches: float | None = None
    z_min: float | None = None
    z_max: float | None = None
    var_ratio_min: float | None = None
    var_ratio_max: float | None = None
    weight_change: float | None = None
    effect: float | None = None
    worst: int | None = None


STORED = "stored"
"""The source of an eps or a momentum that the file stores."""


@dataclass(frozen=True, slots=True)
class Eps:
    """The eps of a layer; `source` is `STORED`, or the framework whose default is assumed."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Momentum:
    """The momentum of a layer in PyTorch's sense, where it is from (as of `Eps`), and in words."""

    value: float | None
    source: str
    said: str


@dataclass(frozen=True, slots=True)
class LayerVersion:
    """A pair of layers, what happened to it and how far it moved.

    `name` and `other_name` are the layer's full names in the first and the second file; one is ""
    and `how` is None where the other file has no such layer. `channels` is the first's number.
    `before` says how the convolution or linear layer in front of it compares, None where it is not
    known; `before_name` is its name in the first file. `sure` is how sure the match is. A
    `momentum` is None where the layer's framework has none.
    """

    name: str
    other_name: str
    how: How | None
    sure: Certainty
    found: Found
    measures: Measures = field(default_factory=Measures)
    channels: int | None = None
    before: Same | None = None
    before_name: str = ""
    out_of_order: bool = False
    eps: tuple[Eps, Eps] | None = None
    momentum: tuple[Momentum | None, Momentum | None] = (None, None)
    modules: tuple[BatchNormModule | None, BatchNormModule | None] = (None, None)


@dataclass(frozen=True, slots=True)
class OtherWeights:
    """How the tensors compare that belong to no BatchNorm layer and stand before none.

    `moved` are names in the first file, `unread` those of tensors whose values cannot be had in one
    of the files, `alone` those in the first file alone and `other_alone` those in the second alone.
    """

    same: int = 0
    rounded: int = 0
    moved: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()
    other_alone: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two files, layer by layer.

    `path` and `other_path` are the files, `part` and `other_part` the part of each that was
    compared, "" for all of it. `layers` are in the first file's order; those of the second alone
    follow. `correlation` is that of the weights with two or more axes, None where there are none to
    compare; `related` says whether they are of one network at two times, None where that cannot be
    told. `others` is None where other weights were not compared. `containers` are the formats of
    the files.
    """

    path: str
    other_path: str
    part: str
    other_part: str
    layers: tuple[LayerVersion, ...]
    correlation: float | None = None
    related: bool | None = None
    others: OtherWeights | None = None
    containers: tuple[str, str] = ("", "")

    @property
    def matched(self) -> tuple[LayerVersion, ...]:
        """The layers that both files have."""
        return tuple(layer for layer in self.layers if layer.how is not None)
