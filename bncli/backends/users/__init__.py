"""A backend that a user wrote: a torch.nn.Module class, or a function on arrays of any library.

module      a class with BatchNorm's arguments, or a function that makes such a module
function    a function (x, weight, bias, running_mean, running_var, training, momentum, eps)
arguments   which arguments the user's code takes, and what it is given
arrays      the arrays that a function takes, and those that it returns
results     what the code returned, checked
guard       what a user's backend is called, and how its code is run

The code runs with whatever rights bncli has: it is named on a command line or in Python, and is
never taken from a settings file.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bncli.backends.users.arguments import Taken
from bncli.errors import ModelError

if TYPE_CHECKING:
    from bncli.backends.interface import Backend
    from bncli.backends.users.guard import Code, Running


def users_backend(value: Any, running: Running, name: str = "") -> Backend:
    """The backend that a class or a function of the user's is.

    `value` is a `torch.nn.Module` class with BatchNorm's arguments, a function that makes such a
    module from `num_features`, or a function (x, weight, bias, running_mean, running_var, training,
    momentum, eps). `name` is how it was chosen, such as "package.module:name"; "" takes that from
    the object. Whatever of the user's runs, runs within `running(what)`, which tells its errors.

    Raises ModelError for anything else.
    """
    from bncli.backends.users.function import function_backend
    from bncli.backends.users.guard import Code
    from bncli.backends.users.module import ModuleBackend

    code = Code.of(value, running, name)
    if isinstance(value, _module_class()):
        raise ModelError(
            f"{code.name}: it is a module already; name its class, or a function that makes one "
            "from num_features."
        )
    if isinstance(value, type):
        if not issubclass(value, _module_class()):
            raise ModelError(
                f"{code.name}: it is a class, but not a torch.nn.Module; name a function "
                "(x, weight, bias, running_mean, running_var, training, momentum, eps) that uses "
                "it."
            )
        return ModuleBackend(code)
    if not callable(value):
        raise ModelError(f"{code.name}: it is neither a class nor a function.")
    return ModuleBackend(code) if _makes_module(code) else function_backend(code)


def _makes_module(code: Code) -> bool:
    """Whether a function makes a module: it says that it returns one, or takes num_features."""
    made = getattr(code.value, "func", None)  # of a functools.partial
    if isinstance(made, type) and issubclass(made, _module_class()):
        return True
    taken = Taken.of(code.value)
    returned = taken.returned
    return "num_features" in taken.names or (
        isinstance(returned, type) and issubclass(returned, _module_class())
    )


def _module_class() -> type | tuple[()]:
    """`torch.nn.Module`; no class at all where nothing has imported torch, so that it is none."""
    torch = sys.modules.get("torch")
    return () if torch is None else torch.nn.Module
