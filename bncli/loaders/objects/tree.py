"""What holds tensors in memory, followed as the same objects are in a file of torch.save.

Dictionaries, lists, modules and other objects become the records that a pickle of them would be, so
that the names of tensors, and what is known of modules, cannot differ from those of the file.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from bncli.errors import TensorError
from bncli.light import dataclass
from bncli.loaders import jax_trees
from bncli.loaders.objects.arrays import as_ref, is_array, is_torch_tensor, torch_if_imported
from bncli.loaders.pickle_records import Dict, Global, Record
from bncli.loaders.torch_tree import Walk
from bncli.loaders.torch_values import NO_TENSOR, View
from bncli.model import TensorFile, TensorRef
from bncli.report import printable

if TYPE_CHECKING:
    from torch import nn

CONTAINER = "memory"
"""What `TensorFile.container` says of objects."""
TENSORS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
SETTINGS = ("eps", "momentum", "affine", "track_running_stats", "training")
"""The attributes of a module that lead to its tensors, and those that a BatchNorm has."""
BYTES_A_NODE = 100
"""What an object would take in a file, for the bounds of the walk."""
NOT_FOLLOWED = (str, bytes, bytearray, int, float, complex, type, FunctionType, ModuleType)
"""What leads to no tensor of its own."""


@dataclass(frozen=True, slots=True)
class HeldView(View):
    """A tensor of memory in the place of a view of a file."""

    held: TensorRef | None = None


class Leaf(Record):
    """An array or a tensor."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        super().__init__(None, ())
        self.value = value


def is_module(value: object) -> bool:
    """Whether it is a torch.nn.Module."""
    torch = torch_if_imported()
    return torch is not None and hasattr(torch, "nn") and isinstance(value, torch.nn.Module)


def is_script(value: object) -> bool:
    """Whether it is a program of TorchScript, or a module in one."""
    torch = torch_if_imported()
    return torch is not None and hasattr(torch, "jit") and isinstance(value, torch.jit.ScriptModule)


def is_open_file(value: object) -> bool:
    """Whether it is a file that was opened, or bytes that are read as one."""
    return isinstance(value, io.IOBase) or type(value).__name__ == "_TemporaryFileWrapper"


def holds(value: object) -> bool:
    """Whether an object may hold tensors by names of its own."""
    if isinstance(value, Mapping | list | tuple) or is_module(value):
        return True
    if isinstance(value, NOT_FOLLOWED):
        return False
    try:
        return hasattr(value, "__dict__")
    except Exception:  # noqa: BLE001  # the object's own code, which raises again in `open_tree`
        return True


def open_tree(root: object, path: Path) -> TensorFile:
    """The tensors and the BatchNorm modules in an object, by the names that torch.save gives them.

    Arrays in trees of JAX's libraries are found as in their files. Raises TensorError where the
    object's own code raises, and CorruptFileError for objects that hold each other far too often.
    """
    mirror = _Mirror(path)
    try:
        node = mirror.of(root)
    except TensorError:
        raise
    except Exception as error:
        said = printable(" ".join(f"{type(error).__name__}: {error}".split()).rstrip("."))
        raise TensorError(f"{printable(str(path))}: looking into it raises {said}.") from error
    file = _Walk(path, node, BYTES_A_NODE * len(mirror.kept)).collect().file(path, CONTAINER)
    if file.modules or any(is_torch_tensor(each) for each in mirror.kept):
        return file
    tensors, layers, modules = jax_trees.unstacked(file.tensors)
    return TensorFile(path, CONTAINER, tensors, modules, file.skipped, layers)


class _Walk(Walk):
    """A walk whose tensors are there already."""

    def __init__(self, path: Path, root: object, length: int) -> None:
        super().__init__(path, root, length, _named)

    def view_of(self, node: object) -> View | None:
        """An array or a tensor."""
        if not isinstance(node, Leaf):
            return None
        ref = as_ref(node.value, self.path)
        why = "it is a NumPy array of text or Python objects"
        why = why if ref.dtype == NO_TENSOR else ref.unreadable
        return HeldView(ref.shape, ref.dtype, ref.strides, unreadable=why, held=ref)


def _named(name: str, view: View) -> TensorRef:
    """The tensor of a view by its name in the tree."""
    from dataclasses import replace

    assert isinstance(view, HeldView)
    assert view.held is not None
    return replace(view.held, name=name)


class _Mirror:
    """Makes records of objects, each object once; `kept` has them, so that none is freed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: list[object] = []
        self.made: dict[int, object] = {}
        self.todo: deque[tuple[Any, Any]] = deque()

    def of(self, root: object) -> object:
        """The record of an object, and of all that it leads to."""
        node = self._node(root)
        while self.todo:
            value, made = self.todo.pop()
            if isinstance(made, list):
                made.extend(map(self._node, value))
            elif isinstance(made, Dict):
                made.pairs = [(key, self._node(each)) for key, each in value.items()]
            elif is_script(value):
                made.states = (self._script_state(value),)
            elif is_module(value):
                made.states = (self._state(value),)
            else:
                state = Dict()
                state.pairs = [(key, self._node(each)) for key, each in vars(value).items()]
                made.states = (state,)
        return node

    def _node(self, value: Any) -> object:
        """The record of an object, which is filled later; a number or a text is itself."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if id(value) in self.made:
            return self.made[id(value)]
        node: object = None
        if is_array(value):
            node = None if _is_lazy(value) else Leaf(value)
        elif isinstance(value, Mapping):
            node = Dict()
        elif isinstance(value, list | tuple):
            node = []
        elif is_script(value):
            node = Record(Global("__torch__", str(value.original_name)), ())
        elif holds(value):
            kind = type(value)
            node = Record(Global(kind.__module__, kind.__name__), ())
        self.kept.append(value)
        self.made[id(value)] = node
        if node is not None and not isinstance(node, Leaf):
            self.todo.append((value, node))
        return node

    def _script_state(self, module: Any) -> Dict:
        """The attributes of a module of TorchScript, of which the file has the same."""
        state = Dict()
        state.pairs.append(("training", module.training))
        own = (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False))
        state.pairs += [(name, self._node(each)) for name, each in own]
        state.pairs += [(name, self._node(each)) for name, each in module.named_children()]
        return state

    def _state(self, module: nn.Module) -> Dict:
        """What leads from a module to its tensors, and what tells of a BatchNorm."""
        own = vars(module)
        state = Dict()
        for key in TENSORS:
            value = own.get(key)
            if isinstance(value, set | frozenset):
                hidden = Record(Global("builtins", "set"), ())
                hidden.elements = sorted(map(str, value))
                state.pairs.append((key, hidden))
            else:
                state.pairs.append((key, self._node(value)))
        state.pairs += [(key, own[key]) for key in SETTINGS if key in own]
        return state


def _is_lazy(value: Any) -> bool:
    """Whether it is a parameter without a shape, which a file lacks too."""
    if not is_torch_tensor(value):
        return False
    from torch.nn.parameter import is_lazy

    return bool(is_lazy(value))
