"""The model that the user names: imported, built, and checked to be one."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

from bncli.backends.torch.tensors import library
from bncli.errors import BncliError, ModelError, UsageError
from bncli.given import at_end, is_given, object_of
from bncli.live.imports import CodeName, code_name, find, kind_of
from bncli.live.keeping import kept_whole
from bncli.live.users_code import users_code
from bncli.loaders import open_file, split_spec
from bncli.loaders.names import listed, missing, nearest, quoted
from bncli.paths import lexists

if TYPE_CHECKING:
    from torch import nn

NO_HOOKS = (
    "a TorchScript program takes no hooks, so its layers cannot be watched; "
    "name the class that it was made from"
)


def load_model(spec: str, arguments: Mapping[str, Any]) -> nn.Module:
    """The model that `package.module:name` or `file.py:name` names, as its code leaves it.

    A class or a function is called with `arguments`, an instance is taken as it is. One that is
    given as an object is put back as it was when the call ends. Raises
    UsageError where the name or the arguments do not fit, FileError for a file that is not there,
    ModelError where the user's code raises or gives something else than a model, and
    MissingBackendError without PyTorch.
    """
    torch = library()
    code = code_name(spec)
    if code is None:
        _refuse_file(spec)
    value = find(code, "model")
    is_built = isinstance(value, torch.nn.Module)
    if not is_built:
        value = _called(code, value, arguments)
    elif arguments:
        raise UsageError(
            f"--arg {quoted(next(iter(arguments)))}: {code} is a model that is built already; "
            "leave --arg out, or name a class or a function."
        )
    if isinstance(value, torch.jit.ScriptModule):
        raise ModelError(f"{code}: {NO_HOOKS}.")
    if not is_built and not isinstance(value, torch.nn.Module):
        raise ModelError(f"{code}: it gives {kind_of(value)}, not a model (torch.nn.Module).")
    if type(value).__name__ == "OptimizedModule":  # torch.compile's; hooks would compile it anew
        value = value.get_submodule("_orig_mod")
    if any(tensor.is_meta for tensor in (*value.parameters(), *value.buffers())):
        raise ModelError(
            f"{code}: its tensors are on the meta device and have no values; build it on the CPU."
        )
    if is_given(spec) and is_built:
        at_end(kept_whole(value))
    return cast("nn.Module", value)


def _refuse_file(spec: str) -> NoReturn:
    """Raise the sentence for a MODEL that is not written as one."""
    path, _ = split_spec(spec)
    shown = quoted(str(path))
    if is_given(spec):
        raise UsageError(
            f"MODEL {shown}: it is {kind_of(object_of(spec))}, not a model; give a "
            "torch.nn.Module, or a class or a function that makes one."
        )
    if not spec or not lexists(path):
        if path.suffix in {".pt", ".pth", ".npz", ".py"}:
            raise missing(path)
        where, colon, name = spec.rpartition(":")
        example = f"{where}.py:{name}" if colon and Path(f"{where}.py").is_file() else "seg.py:UNet"
        raise UsageError(
            f"MODEL '{quoted(spec)}': write package.module:name or file.py:name, such as "
            f"{quoted(example)}."
        )
    try:
        container = open_file(path).container
    except BncliError:
        container = ""
    if container == "torchscript":
        raise ModelError(f"{shown}: {NO_HOOKS}, and give this file with --checkpoint.")
    if container:
        raise UsageError(
            f"{shown} holds tensors, and MODEL is code: name the class, such as seg.py:UNet, and "
            f"add --checkpoint {shown}."
        )
    raise UsageError(f"{shown} is not Python code; MODEL is package.module:name or file.py:name.")


def _called(code: CodeName, value: Any, arguments: Mapping[str, Any]) -> Any:
    """What a class or a function gives."""
    if not callable(value):
        raise ModelError(
            f"{code}: it is {kind_of(value)}, not a model; name a class, a function that gives a "
            "model, or a model (torch.nn.Module)."
        )
    _check_arguments(code, value, arguments)
    with users_code(f"building {code}"):
        return value(**arguments)


def _check_arguments(code: CodeName, value: Any, arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for an argument that is missing, and for one that is not taken."""
    with users_code(f"looking at {code}"):
        try:
            parameters = inspect.signature(value).parameters
        except (TypeError, ValueError):  # of C, or one that hides it: calling it will tell
            return
    kinds = {each.kind for each in parameters.values()}
    named = [
        name
        for name, each in parameters.items()
        if each.kind in {each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY}
    ]
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        for name in arguments:
            if name not in named:
                near = nearest(named, name)
                instead = (
                    f"did you mean {listed(near, ' or ')}?"
                    if near
                    else f"it takes {listed(named) or 'none'}."
                )
                raise UsageError(
                    f"--arg {quoted(name)}: {code} has no argument of that name; {instead}"
                )
    needed = [
        name
        for name, each in parameters.items()
        if each.default is each.empty
        and each.kind not in {each.VAR_POSITIONAL, each.VAR_KEYWORD}
        and name not in arguments
    ]
    if needed:
        raise UsageError(
            f"{code} needs {listed(needed)}; give {'it' if len(needed) == 1 else 'each'} with "
            f"--arg, such as --arg {quoted(needed[0])}=VALUE."
        )
