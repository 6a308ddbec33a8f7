"""What a user knows of the layer behind an output: flags and files -> `Known`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bncli.arguments.input import open_vector
from bncli.arguments.layer import check_pair
from bncli.dtypes import DTYPES
from bncli.errors import TensorError, UsageError
from bncli.given import whence
from bncli.light import np
from bncli.loaders import open_layer, open_tensor
from bncli.model import BatchNormState

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from bncli.arguments.flags import KnownFlags
    from bncli.arguments.input import Input
    from bncli.model import FloatArray
    from bncli.verify.identify.hypotheses import Known

DEFAULT_EPS = 1e-5
"""PyTorch's."""


def open_known(flags: KnownFlags, given: Input) -> Known:
    """What is known of the layer that this input went into.

    A weight and a bias may also be a LayerNorm's, of the input's last axes; where the channels are
    last, one value each is the same in both.
    Raises UsageError for an eps that is not one, TensorError for a tensor that does not fit, and
    FileError for files.
    """
    from bncli.verify.identify.hypotheses import Known

    stored = open_layer(flags.state) if flags.state else BatchNormState("")
    eps, origin = (DEFAULT_EPS, "default") if flags.eps is None else (flags.eps, "")
    if flags.eps is None and (module := stored.module) is not None:
        from bncli.running_stats.stored import convention_of, owner
        from bncli.state_dict.names import of_convention

        usual, row = of_convention(module.convention), convention_of(module)
        if module.eps is not None:
            eps, origin = module.eps, f"from {whence(flags.state)}"
        elif usual is not None and row is not None:
            eps, origin = usual.eps, f"{owner(row)} default"
    if not 0 <= eps < math.inf:
        raise UsageError(f"--eps {eps:g}: eps must be a finite number, 0 or above.")
    trailing = _trailing_affine(flags, given)

    def choose(name: str, *, own: bool = False) -> FloatArray | None:
        """The tensor of a flag, else that of the state; `own` says that it is a LayerNorm's."""
        spec: str | None = getattr(flags, name)
        kept: NDArray[Any] | None = getattr(stored, name)
        if own:
            return None
        if spec is not None:
            return read_vector(name, spec, given)[0]
        return None if kept is None else fitted(name, kept, str(flags.state), given)

    # One value each may be either's, where the channels are not last.
    own = {name for name, values in trailing.items() if values.shape != (given.num_features,)}
    known = Known(
        weight=choose("weight", own="weight" in own),
        bias=choose("bias", own="bias" in own),
        trailing_weight=trailing.get("weight"),
        trailing_bias=trailing.get("bias"),
        running_mean=choose("running_mean"),
        running_var=choose("running_var"),
        eps=eps,
        eps_origin=origin,
        training=flags.training,
    )
    mean, var = known.running_mean is not None, known.running_var is not None
    check_pair(mean=mean, var=var, flags=flags)
    return known


def _trailing_affine(flags: KnownFlags, given: Input) -> dict[str, FloatArray]:
    """Those of weight and bias that have the shape of the input's last axes, by name.

    Raises TensorError where the two cannot belong to one norm.
    """
    ndim = given.tensors[0].ndim
    specs = {"weight": flags.weight, "bias": flags.bias}
    trailing: dict[str, FloatArray] = {}
    for name, spec in specs.items():
        found = None if spec is None else read_trailing(spec, given.tensors[0].shape)
        if found is not None and (found.ndim > 1 or given.channel_axis != ndim - 1):
            trailing[name] = found
    sizes = {name: found.shape for name, found in trailing.items()}
    if len(set(sizes.values())) > 1:
        raise TensorError(
            f"weight has shape {list(sizes['weight'])} and bias {list(sizes['bias'])}; in one "
            "layer they have the same shape."
        )
    for name, other in (("weight", "bias"), ("bias", "weight")):
        size = sizes.get(name, (given.num_features,))
        if size != (given.num_features,) and other not in sizes and specs[other] is not None:
            raise TensorError(
                f"{name} has shape {list(size)}, that of the input's last axes, but {other} "
                "does not; in one layer they have the same shape."
            )
    return trailing


def read_trailing(spec: str, shape: tuple[int, ...]) -> FloatArray | None:
    """A weight or bias in the shape of the last axes of `shape`, None where it has another."""
    tensor = open_tensor(spec)
    axes = tensor.ndim
    if not 0 < axes < len(shape) or tensor.shape != shape[-axes:]:
        return None
    if tensor.unreadable or DTYPES[tensor.dtype].kind == "complex":
        return None
    return tensor.read().astype(np.float64)


def read_vector(name: str, spec: str, given: Input) -> tuple[FloatArray, str]:
    """One value per channel from a file, as float64, and its stored dtype."""
    tensor = open_vector(spec, f"{name} cannot")
    return fitted(name, tensor.read(), tensor.label, given), tensor.dtype


def fitted(name: str, values: NDArray[Any], where: str, given: Input) -> FloatArray:
    """The values as float64. Raises TensorError unless there is one for each channel."""
    if values.shape != (given.num_features,):
        raise TensorError(
            f"{where}: {name} has shape {list(values.shape)}, but {given.tensors[0].label} has "
            f"{given.channels_said}; name another tensor or another --channel-axis."
        )
    return values.astype(np.float64)
