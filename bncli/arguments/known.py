"""What a user knows of the layer behind an output: flags and files -> `Known`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from bncli.dtypes import DTYPES
from bncli.errors import TensorError, UsageError
from bncli.loaders import open_layer, open_tensor, split_spec
from bncli.model import BatchNormState

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from bncli.arguments.flags import EitherModeFlags
    from bncli.model import FloatArray
    from bncli.verify.identify.hypotheses import Known

DEFAULT_EPS = 1e-5
"""PyTorch's."""


@dataclass(frozen=True, slots=True)
class KnownFlags:
    """The Layer panel as typed; None where a flag was not given."""

    state: str | None
    eps: float | None
    weight: str | None
    bias: str | None
    running_mean: str | None
    running_var: str | None
    training: bool | None

    @classmethod
    def of(cls, flags: EitherModeFlags) -> KnownFlags:
        """What the Layer panel of a comparison says of the layer behind an output."""
        return cls(
            flags.state,
            flags.eps,
            flags.weight,
            flags.bias,
            flags.running_mean,
            flags.running_var,
            flags.training,
        )

    def refuse_any(self, what: str) -> None:
        """Raise UsageError where one was given, though it has no place in `what`."""
        for field in fields(self):
            if getattr(self, field.name) is not None:
                flag = field.name.replace("_", "-")
                if field.name == "training":
                    flag = "training" if self.training else "eval"
                raise UsageError(f"--{flag} has no place in {what}; leave it out.")

    @property
    def read(self) -> tuple[str, ...]:
        """The files that are read."""
        specs = (self.state, self.weight, self.bias, self.running_mean, self.running_var)
        return tuple(str(split_spec(spec)[0]) for spec in specs if spec)


def open_known(
    flags: KnownFlags,
    num_features: int,
    label: str,
    shape: tuple[int, ...] = (),
    channel_axis: int = 1,
) -> Known:
    """What is known of the layer, for an input of so many channels named `label`.

    With the input's `shape` a weight and a bias may also be a LayerNorm's, of its last axes; where
    the channels are last, one value each is the same in both.
    Raises UsageError for an eps that is none, TensorError for a tensor that does not fit, and
    FileError for files.
    """
    from bncli.verify.identify.hypotheses import Known

    stored = open_layer(flags.state) if flags.state else BatchNormState("")
    eps = flags.eps
    if eps is None:
        eps = DEFAULT_EPS
        if stored.module is not None and stored.module.eps is not None:
            eps = stored.module.eps
    if not 0 <= eps < math.inf:
        raise UsageError(f"--eps {eps:g}: eps is a number, 0 or more.")

    def choose(name: str, spec: str | None, kept: NDArray[Any] | None) -> FloatArray | None:
        if spec is not None:
            return read_vector(name, spec, num_features, label)[0]
        return None if kept is None else fitted(name, kept, str(flags.state), num_features, label)

    trailing = {
        name: read_trailing(spec, shape)
        for name, spec in (("weight", flags.weight), ("bias", flags.bias))
        if spec is not None and shape
    }
    if channel_axis == len(shape) - 1:
        trailing = {n: v for n, v in trailing.items() if v is not None and v.ndim > 1}
    sizes = {name: found.shape for name, found in trailing.items() if found is not None}
    if len(set(sizes.values())) > 1:
        raise TensorError(
            f"weight has shape {list(sizes['weight'])} and bias {list(sizes['bias'])}; those of "
            "one norm have the same."
        )
    own = {name for name, size in sizes.items() if size != (num_features,)}
    for name, other in (("weight", "bias"), ("bias", "weight")):
        if name in own and trailing.get(other) is None and getattr(flags, other) is not None:
            raise TensorError(
                f"{name} has shape {list(sizes[name])}, that of the input's last axes, and {other} "
                "another; those of one norm have the same."
            )
    known = Known(
        weight=None if "weight" in own else choose("weight", flags.weight, stored.weight),
        bias=None if "bias" in own else choose("bias", flags.bias, stored.bias),
        trailing_weight=trailing.get("weight"),
        trailing_bias=trailing.get("bias"),
        running_mean=choose("running_mean", flags.running_mean, stored.running_mean),
        running_var=choose("running_var", flags.running_var, stored.running_var),
        eps=eps,
        training=flags.training,
    )
    if (known.running_mean is None) != (known.running_var is None):
        have, lack = ("mean", "var") if known.running_mean is not None else ("var", "mean")
        raise UsageError(
            f"running_{have} is given without running_{lack}; they belong together: "
            f"add --running-{lack}."
        )
    return known


def read_trailing(spec: str, shape: tuple[int, ...]) -> FloatArray | None:
    """A weight or bias in the shape of the last axes of `shape`, None where it has another."""
    import numpy as np

    tensor = open_tensor(spec)
    axes = tensor.ndim
    if not 0 < axes < len(shape) or tensor.shape != shape[-axes:]:
        return None
    if tensor.unreadable or DTYPES[tensor.dtype].kind == "complex":
        return None
    return tensor.read().astype(np.float64)


def read_vector(name: str, spec: str, num_features: int, label: str) -> tuple[FloatArray, str]:
    """One value a channel from a file, as float64, and its stored dtype."""
    tensor = open_tensor(spec)
    if tensor.unreadable or DTYPES[tensor.dtype].kind == "complex":
        why = tensor.unreadable or tensor.dtype
        raise TensorError(f"{tensor.label}: {name} cannot be read from it ({why}).")
    return fitted(name, tensor.read(), tensor.label, num_features, label), tensor.dtype


def fitted(
    name: str, values: NDArray[Any], where: str, num_features: int, label: str
) -> FloatArray:
    """The values as float64. Raises TensorError unless there is one for each channel."""
    import numpy as np

    if values.shape != (num_features,):
        raise TensorError(
            f"{where}: {name} has shape {list(values.shape)}, but {label} has {num_features} "
            "channels; name another tensor or another --channel-axis."
        )
    return values.astype(np.float64)
