"""Simple maps of a model's input that its first layer's statistics may have been made for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bncli.light import dataclass, np
from bncli.model.capture import InputKernel
from bncli.rulebook.live.training_data import training_data

if TYPE_CHECKING:
    from torch import Tensor

    from bncli.model import FloatArray
    from bncli.model.capture import Capture, InputSums
    from bncli.report import Value

BYTES = 30
"""Whole numbers above it are taken for the bytes of an image."""

NEAR = 1.3
"""A scale that the first layer's variances ask for counts as 255, or 1/255, within this factor."""

SLACK = 0.5
"""How far pixels from 0 to 1 may be outside of that, as noise and interpolation leave them."""

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's channels, of pixels from 0 to 1."""


@dataclass(frozen=True, slots=True)
class InputMap:
    """What becomes of the input: `scale` times it plus `shift`, both (channels,).

    Or its channels in another `order`. `what` says it for people.
    """

    what: str
    scale: FloatArray
    shift: FloatArray
    order: tuple[int, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """The map of an input of shape (N, channels, ...), in its dtype; float32 for integers."""
        import torch

        if self.order:
            return x[:, list(self.order)]
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        shape = (1, -1, *(1,) * (x.ndim - 2))
        scale = torch.as_tensor(self.scale, device=x.device).reshape(shape)
        shift = torch.as_tensor(self.shift, device=x.device).reshape(shape)
        return (x.double() * scale + shift).to(dtype)

    @property
    def numbers(self) -> Mapping[str, Value]:
        """The map's numbers, one for each channel."""
        if self.order:
            return {"order": list(self.order)}
        return {"scale": self.scale.tolist(), "shift": self.shift.tolist()}


def input_maps(capture: Capture, most: int, *, whole: bool) -> list[InputMap]:
    """The `most` maps that suit the first layer best, the simplest first.

    `whole` says that the input holds whole numbers. Candidates are: divided by 255, where whole
    numbers above 30 came in or the first layer's variances ask for about that; multiplied by 255
    (somebody divided twice); three channels in reverse order; less ImageNet's mean, over its
    standard deviation, of pixels from 0 to 1 or bytes; or, where what came in is no pixels, the
    reverse of that, or a division by 255 that should have come before it; less the data's own mean;
    that, over its own standard deviation; shifted so that the means are those that the first
    layer's running_mean implies; also scaled by what its running_var asks for. All scales are
    positive: no map takes away anything that the input says, so that a smaller gap cannot come of a
    poorer input.

    Where the first layer does not sit directly behind a convolution or linear layer that reads the
    input, or on the input itself, the simplest are taken. Empty where the input is not known, or
    holds NaN or Inf.
    """
    record = _record(capture)
    if record is None:
        return []
    first = _First.of(capture, record)
    maps = _candidates(record, first, whole=whole)
    if first is None:
        return maps[:most]
    best = sorted(maps, key=lambda each: first.misfit(each, record))[:most]
    return [each for each in maps if each in best]


def _candidates(record: InputSums, first: _First | None, *, whole: bool) -> list[InputMap]:
    one, zero = np.ones(record.num_features), np.zeros(record.num_features)
    asked = 1.0 if first is None else first.scale
    std = np.where(record.var > 0, np.sqrt(record.var), 1.0)
    maps = []
    if (whole and float(record.max.max()) > BYTES) or _near(asked, 1 / 255):
        maps.append(InputMap("input divided by 255", one / 255, zero))
    if _near(asked, 255):
        maps.append(InputMap("input multiplied by 255", one * 255, zero))
    if record.num_features == len(IMAGENET[0]):
        maps.append(InputMap("input's channels in reverse order", one, zero, (2, 1, 0)))
        maps += _imagenet(record, whole=whole, far=first is None or asked < 1 / BYTES)
    maps.append(InputMap("input less its own mean", one, -record.mean))
    what = "input less its own mean, over its own standard deviation"
    maps.append(InputMap(what, 1 / std, -record.mean / std))
    if first is not None:
        what = "input shifted to the means that the first layer's running_mean implies"
        maps.append(InputMap(what, one, first.means - record.mean))
        what = "input scaled and shifted as the first layer's statistics imply"
        maps.append(InputMap(what, one * asked, first.means - asked * record.mean))
    return maps


def _imagenet(record: InputSums, *, whole: bool, far: bool) -> list[InputMap]:
    """ImageNet's mean and standard deviation applied to pixels or bytes, or taken back.

    `far` says that the input may be many times what it should be.
    """
    low, high = float(record.min.min()), float(record.max.max())
    mean, std = np.array(IMAGENET[0]), np.array(IMAGENET[1])
    if far and high > BYTES and not whole:  # bytes that were normalised as pixels are
        what = "input divided by 255 before ImageNet's mean and standard deviation are applied"
        return [InputMap(what, np.full(len(mean), 1 / 255), (1 / 255 - 1) * mean / std)]
    if low < -SLACK:
        return [InputMap("input times ImageNet's standard deviation, plus its mean", std, mean)]
    if high <= 1 + SLACK:
        what = "input less ImageNet's mean, over its standard deviation"
        return [InputMap(what, 1 / std, -mean / std)]
    if whole and BYTES < high <= 255:
        what = "input divided by 255, less ImageNet's mean, over its standard deviation"
        return [InputMap(what, 1 / std / 255, -mean / std)]
    return []


def _record(capture: Capture) -> InputSums | None:
    """What came into the model; None where it is not known or not finite."""
    seen = capture.input.seen if capture.input is not None else {}
    record = next(iter(seen.values()), None)
    return record if record is not None and np.isfinite(record.var).all() else None


def _near(scale: float, wanted: float) -> bool:
    return wanted / NEAR < scale < wanted * NEAR


@dataclass(frozen=True, slots=True)
class _First:
    """The first layer, and what its statistics say of the input that they were made with.

    `means` (in_channels,) are that input's, `scale` is the factor of the input at which the
    variances that came in would be those stored, the median channel's. `wanted` and `stored`
    (num_features,) are running_mean and running_var + eps.
    """

    kernel: InputKernel
    means: FloatArray
    scale: float
    wanted: FloatArray
    stored: FloatArray

    @classmethod
    def of(cls, capture: Capture, record: InputSums) -> _First | None:
        """None where no layer with finite statistics reads the input or a convolution of it."""
        for layer in capture.norms:
            state, seen = layer.state, next(iter(layer.seen.values()), None)
            if seen is None or state is None:
                continue
            if state.running_mean is None or state.running_var is None:
                continue
            wanted = state.running_mean.astype(np.float64)
            var = state.running_var.astype(np.float64)
            found = training_data(layer, seen, wanted, var + layer.eps, record)
            if found is None:
                continue
            with np.errstate(all="ignore"):
                scale = float(np.median(np.sqrt(var / seen.var)))
            if not (np.isfinite(scale) and scale > 0):
                return None
            kernel = layer.kernel or InputKernel(np.eye(layer.num_features), None)
            return cls(kernel, found.means, scale, wanted, var + layer.eps)
        return None

    def misfit(self, each: InputMap, record: InputSums) -> float:
        """How far the first layer's input is from its statistics with a map, padding apart.

        The means in standard deviations, and the scale, as the root mean square of both. A scale of
        the map that differs by channel counts with its geometric mean.
        """
        mean = record.mean[list(each.order)] if each.order else record.mean
        came = self.kernel.sums @ (each.scale * mean + each.shift)
        if self.kernel.bias is not None:
            came = came + self.kernel.bias
        z = (came - self.wanted) / np.sqrt(self.stored)
        scale = float(np.exp(np.log(each.scale).mean())) / self.scale
        return float(np.sqrt(np.square(z).mean() + (scale - 1) ** 2))
