"""An implementation that is given its input in another layout than bncli made it in."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from bncli.light import np
from bncli.testing.inputs import laid_out

if TYPE_CHECKING:
    from bncli.testing.configurations import Layout


def laid_out_for(implementation: Callable[..., Any], layout: Layout) -> Callable[..., Any]:
    """A class, a function that makes modules or a function, with its input in a layout.

    Arrays of other libraries than NumPy and PyTorch have no layout, and stay as they are.
    """

    def called(*arguments: Any, **named: Any) -> Any:
        if arguments:
            arguments = _relaid(arguments[0], layout), *arguments[1:]
        made = implementation(*arguments, **named)
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(made, torch.nn.Module):
            made.register_forward_pre_hook(
                lambda _module, given: (_relaid(given[0], layout), *given[1:])
            )
        return made

    update_wrapper(called, implementation, updated=())
    if isinstance(implementation, type):
        called.func = implementation  # type: ignore[attr-defined]  # as functools.partial has it
    if hasattr(implementation, "array"):
        called.array = implementation.array  # type: ignore[attr-defined]  # what makes its arrays
    return called


def _relaid(x: Any, layout: Layout) -> Any:
    """An array or a tensor in a layout; the gradient passes."""
    if isinstance(x, np.ndarray):
        return laid_out(x, layout)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(x, torch.Tensor):
        return x
    if layout == "reversed":
        return x.permute(*reversed(range(x.ndim))).contiguous().permute(*reversed(range(x.ndim)))
    if layout == "strided":
        between = torch.full_like(x, -7.0)
        wide = torch.stack([x, between], dim=-1).flatten(-2)
        return wide[..., ::2]
    if layout == "channels_last":
        kept: Any = {4: torch.channels_last, 5: torch.channels_last_3d}
        return x.contiguous(memory_format=kept[x.ndim])
    return x
