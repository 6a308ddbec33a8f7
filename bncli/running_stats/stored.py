"""eps and momentum as a file stores them: which convention they follow, and how that is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bncli.model import BatchNormModule
    from bncli.running_stats.conventions import Convention

_FRAMEWORKS = {"tf-v1": "TensorFlow", "gluon": "MXNet Gluon"}
"""What people call the framework, where that is not the first word of the convention's."""


def convention_of(module: BatchNormModule | None) -> Convention | None:
    """The convention of a stored layer; None for PyTorch's, and where none is known.

    What PyTorch's rules say of a layer then holds for it.
    """
    if module is None or module.convention == "pytorch":
        return None
    from bncli.running_stats.frameworks import CONVENTIONS

    return next((row for row in CONVENTIONS if row.name == module.convention), None)


def framework_of(row: Convention) -> str:
    """The framework of a convention in a word: "Keras", "ONNX", "TensorFlow"."""
    if "Keras" in row.framework:
        return "Keras"
    return _FRAMEWORKS.get(row.name) or row.framework.split()[0]


def owner(row: Convention) -> str:
    """The framework of a convention as an owner: "Flax's", "Keras'"."""
    framework = framework_of(row)
    return f"{framework}'{'s' * (not framework.endswith('s'))}"


def channel_axis(module: BatchNormModule | None) -> tuple[int, str]:
    """The channel axis of a layer's input, and where it is from: "" for PyTorch's 1.

    It is "from the file", or the default of the layer's framework where channels come last there:
    "Flax's default".
    """
    if module is not None and module.channel_axis is not None:
        return module.channel_axis, "from the file"
    row = convention_of(module)
    if row is not None and row.channel_axis == "-1":
        return -1, f"{owner(row)} default"
    return 1, ""


def stored_momentum(module: BatchNormModule | None) -> tuple[float | None] | None:
    """The momentum that a file stores, in PyTorch's sense; None where it stores none.

    It comes in a tuple, since a momentum of None is the cumulative average. Of a module whose eps
    is not known either, None says nothing.
    """
    if module is None or not module.has_momentum:
        return None
    known = module.momentum is not None
    cumulative = module.eps is not None and module.convention == "pytorch"
    return (module.momentum,) if known or cumulative else None


def stated_momentum(module: BatchNormModule | None) -> float | None:
    """The momentum as the file states it, where that is not PyTorch's sense of it; else None."""
    row = convention_of(module)
    if module is None or row is None or stored_momentum(module) is None:
        return None
    if module.stated_momentum is not None:
        return module.stated_momentum
    return None if module.momentum is None else row.momentum_of(module.momentum)


def said_momentum(module: BatchNormModule | None, momentum: float | None) -> str:
    """A momentum in PyTorch's sense, as a sentence says it, and what the file says for it.

    "momentum 0.1", "momentum none", or, where the layer's framework weighs the old value,
    "momentum 0.99 (Keras: weighs the old value; 0.01 in PyTorch's sense)".
    """
    stored = stored_momentum(module) == (momentum,)
    return _said(convention_of(module), momentum, stated_momentum(module) if stored else None)


def said_by_names(names: str, momentum: float | None) -> str:
    """As `said_momentum`, of a layer whose tensors alone tell its framework: "keras", "flax"."""
    from bncli.running_stats.frameworks import CONVENTIONS

    row = next((row for row in CONVENTIONS if row.name.rstrip("3") == names), None)
    return _said(row, momentum, None)


def _said(row: Convention | None, momentum: float | None, stated: float | None) -> str:
    """A momentum under a convention, which the file may state by another number."""
    own = "none" if momentum is None else f"{momentum:g}"
    if row is None or row.weighs == "new" or momentum is None:
        return f"momentum {own}"
    stated = row.momentum_of(momentum) if stated is None else stated
    meaning = f"{framework_of(row)}: weighs the old value; {own} in PyTorch's sense"
    return f"momentum {stated:g} ({meaning})"
