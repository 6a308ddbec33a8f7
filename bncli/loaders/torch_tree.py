"""A walk over the records of a pickle: every tensor under the name that state_dict() gives it.

Dictionaries, lists, modules and any other objects are followed, and the keys on the way are
joined by dots. What no tensor hangs on is never entered, so a training run's configuration, its
losses and its tokenizer cost one look. Objects may hold each other in circles and share parts;
the walk is bounded by what the pickle really has.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import field
from pathlib import Path

from bncli.errors import CorruptFileError
from bncli.light import dataclass
from bncli.loaders.pickle_records import Dict, Pickle, Record
from bncli.loaders.torch_objects import Objects
from bncli.loaders.torch_places import Place, Places
from bncli.loaders.torch_values import NO_TENSOR, View, as_view
from bncli.model import BatchNormModule, TensorFile, TensorRef

# A few bytes of a pickle can lead to one tensor along any number of paths, each with a name of its
# own. So everything that repeats has a budget, far above what checkpoints need.
DEEPEST = 200
"""Deeper than any model is nested; it bounds the search for circles above an object."""
LONGEST_NAME = 4_096
BYTES_A_TENSOR, FREE_TENSORS = 30, 1_000
"""A pickle spends at least this many bytes on a tensor, be it by repeating what it remembers."""
BYTES_A_STEP, FREE_STEPS = 4, 10_000
"""A look at an object on the way to a tensor, again for each path, costs a step ..."""
STEPS_AN_EDGE = 8
"""... of which each reference from an object to another earns as many: parts are shared by few."""
LETTERS_A_LEAD, FREE_LETTERS = 400, 4_000_000
"""All names on the way together may be so long, for each object that leads to a tensor."""


@dataclass(frozen=True, slots=True)
class Contents:
    """The tensors and BatchNorm modules under a root object, by full name.

    `skipped` has the arrays of text or objects, which are not tensors, with the reason.
    """

    tensors: dict[str, TensorRef] = field(default_factory=dict)
    modules: dict[str, BatchNormModule] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def file(self, path: Path, container: str) -> TensorFile:
        """The contents as those of a file."""
        return TensorFile(path, container, self.tensors, self.modules, self.skipped)


def collect(path: Path, pickle: Pickle, place: Place) -> Contents:
    """Every tensor that can be reached from the pickle's object.

    A tensor that several paths lead to is listed under each. `modules` has every module that is
    a BatchNorm or keeps running statistics. Raises CorruptFileError for a view that leaves its
    storage, and for a structure that unfolds to far more tensors than it has.
    """
    places = Places(path, pickle.data, place)
    return Walk(path, pickle.value, pickle.length, places.ref).collect()


class Walk:
    """A walk from a root object, of which `length` bytes tell; `ref` makes the tensors."""

    def __init__(
        self, path: Path, root: object, length: int, ref: Callable[[str, View], TensorRef]
    ) -> None:
        self.path = path
        self.root = root
        self.most_tensors = FREE_TENSORS + length // BYTES_A_TENSOR
        self.objects = Objects(path, FREE_STEPS + length // BYTES_A_STEP)
        self.ref = ref
        self.contents = Contents()
        self.views: dict[int, View] = {}
        self.numbers: dict[str, int] = {}

    def collect(self) -> Contents:
        """Follow, in the file's order, everything that leads to a tensor."""
        objects = self.objects
        leads = self._leads()
        letters = FREE_LETTERS + LETTERS_A_LEAD * len(leads)
        entered: set[int] = set()
        circular: set[int] = set()
        above: list[int] = []
        stack: list[tuple[object, str, str, int]] = [(self.root, "", "", 0)]
        while stack:
            node, prefix, key, depth = stack.pop()
            del above[depth:]
            if id(node) in above:
                circular.update(above[above.index(id(node)) :])
                continue
            above.append(id(node))
            name = f"{prefix}.{key}" if prefix and key else prefix or key
            letters -= len(name)
            if letters < 0 or depth > DEEPEST or len(name) > LONGEST_NAME:
                raise self.objects.unfolds()
            view = self.views.get(id(node))
            if view is not None and view.dtype == NO_TENSOR:
                self.contents.skipped[name] = view.unreadable
                continue
            if view is not None:
                name = self._free(name)
                self.contents.tensors[name] = self.ref(name, view)
                continue
            if isinstance(node, Record):
                # Programs' own objects refer to each other freely. Those that hold each other in
                # circles would unfold without end, so they are entered on the first path only.
                if id(node) in entered and id(node) in circular and not objects.is_module(node):
                    continue
                entered.add(id(node))
                module = objects.module(node)
                if module is not None:
                    self.contents.modules[name] = module
            inside = []
            for child_key, child in objects.items(node):
                objects.spend(1)
                if id(child) in leads:
                    inside.append((child, name, child_key, depth + 1))
            stack.extend(reversed(inside))
        return self.contents

    def _leads(self) -> set[int]:
        """The identities of all objects from which a tensor or a BatchNorm can be reached."""
        nodes: list[object] = [self.root]
        number = {id(self.root): 0}
        last_edge = array("l", [-1])  # of each node: its newest edge from a parent, ...
        parents, older = array("l"), array("l")  # ... of each edge: the parent, the edge before
        ends = []
        at = edges = 0
        while at < len(nodes):
            node = nodes[at]
            view = self.view_of(node)
            if view is not None:
                self.views[id(node)] = view
                if len(self.views) > self.most_tensors:
                    raise self.objects.unfolds()
                ends.append(at)
            elif isinstance(node, Record) and self.objects.norm_name(node):
                ends.append(at)
            for child in () if view else _children(node):
                edges += 1
                if not isinstance(child, Dict | Record | list | tuple):
                    continue
                index = number.setdefault(id(child), len(nodes))
                if index == len(nodes):
                    nodes.append(child)
                    last_edge.append(-1)
                parents.append(at)
                older.append(last_edge[index])
                last_edge[index] = len(parents) - 1
            at += 1
        self.objects.steps += STEPS_AN_EDGE * edges
        leads = {id(nodes[end]) for end in ends}
        while ends:
            edge = last_edge[ends.pop()]
            while edge >= 0:
                parent = parents[edge]
                if id(nodes[parent]) not in leads:
                    leads.add(id(nodes[parent]))
                    ends.append(parent)
                edge = older[edge]
        return leads

    def view_of(self, node: object) -> View | None:
        """The tensor that a node is; None where it is none."""
        try:
            return as_view(node)
        except (ValueError, TypeError, IndexError) as error:
            fact = "too few arguments" if isinstance(error, IndexError) else error
            raise CorruptFileError(
                self.path,
                f"the description of one of its tensors is wrong ({fact}); the file is"
                " damaged, so download or save it again.",
            ) from error

    def _free(self, name: str) -> str:
        """The name, or one with a number behind it where two paths spell the same."""
        if name not in self.contents.tensors:
            return name
        number = max(len(self.contents.tensors), self.numbers.get(name, 0))
        while f"{name} ({number})" in self.contents.tensors:
            self.objects.spend(1)
            number += 1
        self.numbers[name] = number + 1
        return f"{name} ({number})"


def _children(node: object) -> Iterator[object]:
    """Everything that a node holds directly."""
    if isinstance(node, list | tuple):
        yield from node
    elif isinstance(node, Dict | Record):
        for _, value in node.pairs:
            yield value
        if isinstance(node, Record):
            yield from node.args
            yield from node.elements
            yield from node.states
