"""The convolution or linear layer in front of each layer, by names and the order of the file."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from bncli.dtypes import DTYPES
from bncli.light import dataclass
from bncli.state_dict.names import BIASES, has_trees, split_any

if TYPE_CHECKING:
    from bncli.model import StoredFront, TensorFile, TensorRef
    from bncli.state_dict import LayerRefs

OUT_FIRST = ("weight", "W")
"""Names of weights whose first axis is that of the output channels: PyTorch, MXNet, Chainer."""
OUT_LAST = ("kernel", "pointwise_kernel", "depthwise_kernel", "weights")
"""Names of weights whose last axis is that: Keras, Flax, TensorFlow. Of several that a layer has,
the first makes its output."""

_NORM = re.compile(r"batch_?norm(?:alization)?s?|bns?(?![a-z])|norms?(?![a-z])", re.IGNORECASE)
"""What a name says of a norm, and what it may say of the layer in front instead."""
_INSTEAD = ("conv", "convs", "conv2d", "fc", "fcs", "linear", "linears", "lin", "lins", "dense", "")
_TRANSPOSED = re.compile(r"deconv|transpose|upconv|convt|up_?sampl", re.IGNORECASE)
"""Names of convolutions whose weights have the input channels first in PyTorch."""


@dataclass(frozen=True, slots=True)
class InFront:
    """A layer with a weight of two or more axes; `axis` is that of the output channels.

    One is `bare` where the file says that it has no bias.
    """

    name: str
    weight: TensorRef
    bias: TensorRef | None = None
    axis: int = 0
    bare: bool = False


@dataclass(frozen=True, slots=True)
class _Step:
    """What a file has under one name. `place` counts them in the file's order.

    `above` is the name of the module that it is in, with its dot, and `own` its own. `weight` has
    two or more axes and is called `leaf`; it is None for layers that have none.
    """

    name: str
    place: int
    above: str
    own: str
    weight: TensorRef | None = None
    leaf: str = ""
    bias: TensorRef | None = None


def in_front(file: TensorFile, layers: Mapping[str, LayerRefs]) -> dict[str, InFront]:
    """What is in front of each of some layers of a file, by their names.

    In a sequence of numbered layers it is the one of the next lower number. Elsewhere it is the one
    that is called alike (`conv1` for `bn1`, `fc` for `bn`, `mlp_convs.0` for `mlp_bns.0`, or the
    scope in which the layer is), else the one directly before the layer in the file and in its
    module. It has as many output channels as the layer.

    A layer is left out where this leaves doubts: where names fit in one module and not in another
    one with the same names, as where the normalisation comes first; where layers of the two kinds
    stand in runs; or where one convolution fits two layers. Where the file itself says what is in
    front of some layer, that holds for all whose tensors it tells.
    """
    told = {
        name: each
        for name, stored in file.layers.items()
        if name in layers and (each := _told(file, stored.front, layers[name])) is not None
    }
    taken = {each.weight.name for each in told.values()}
    # A graph, which says eps too, knows also in front of which there is nothing.
    known = {n for n in file.layers if (m := file.modules.get(n)) is not None and m.eps is not None}
    found = _Search(file, layers).found()
    return told | {
        name: each
        for name, each in found.items()
        if each.weight.name not in taken and not (told and name in known)
    }


def _told(file: TensorFile, front: StoredFront | None, layer: LayerRefs) -> InFront | None:
    """What a file says is in front of a layer, if it has as many output channels as the layer."""
    if front is None or front.weight not in file.tensors:
        return None
    weight = file.tensors[front.weight]
    bias = None if front.bias is None else file.tensors.get(front.bias)
    width = next((ref.numel for ref in layer.tensors.values()), 0)
    fits = 0 <= front.axis < weight.ndim and weight.shape[front.axis] == width
    if not fits or (bias is not None and bias.numel != width):
        return None
    return InFront(front.name, weight, bias, front.axis)


class _Search:
    """The layers of a file in order, among which those in front of others are looked for."""

    def __init__(self, file: TensorFile, layers: Mapping[str, LayerRefs]) -> None:
        self.layers = layers
        self.steps = list(_steps(file, layers))
        self.by_name = {step.name: step for step in self.steps}
        self.by_lower = {f"{step.above}{step.own}".lower(): step for step in self.steps}
        names = [step.name for step in self.steps]
        self.is_sorted = file.container == "safetensors" or names == sorted(names)

    def found(self) -> dict[str, InFront]:
        """What is in front of each layer where there is no doubt."""
        called = self._called_alike()
        before: dict[str, tuple[_Step, int]] = {}
        for step in self.steps:
            if step.name not in self.layers:
                continue
            if step.own.isdecimal() and step.name not in called:
                near = self._lower_number(step)
            else:
                near = called.get(step.name) or self._directly_before(step)
            axis = None if near is None else self._axis(near, step)
            if near is not None and axis is not None:
                before[step.name] = near, axis
        claimed = Counter(near.name for near, _ in before.values())
        return {
            name: InFront(near.name, near.weight, near.bias, axis)
            for name, (near, axis) in before.items()
            if claimed[near.name] == 1 and near.weight is not None
        }

    def _called_alike(self) -> dict[str, _Step]:
        """The layer in front that a layer's name tells, if it fits all layers with such names.

        One that does not shows that the numbers count something else, or that the normalisation
        comes first. What is in front has to come before the layer in the file, unless the file is
        sorted by name, or the inputs of some such weight are not as many as the layer gives.
        """
        fits: dict[str, _Step] = {}
        patterns: dict[tuple[str, str, bool], list[str]] = defaultdict(list)
        refuted: set[tuple[str, str, bool]] = set()
        not_behind: set[tuple[str, str, bool]] = set()
        for step in self.steps:
            if step.name not in self.layers:
                continue
            near = [self.by_lower[name] for name in _alike(step) if name in self.by_lower]
            near = [each for each in near if each.weight is not None]
            if len(near) > 1:
                near = [each for each in near if self._axis(each, step) is not None]
            if len(near) != 1:
                continue
            late = not (self.is_sorted or near[0].place < step.place)
            pattern = _pattern(step), _pattern(near[0]), late
            fits[step.name] = near[0]
            patterns[pattern].append(step.name)
            if (axis := self._axis(near[0], step)) is None:
                refuted.add(pattern)
            elif _inputs(near[0], axis) != self._width(step):
                not_behind.add(pattern)
        refuted |= {pattern for pattern in patterns if pattern[2]} - not_behind
        for pattern in refuted:
            for name in patterns[pattern]:
                del fits[name]
        return fits

    def _lower_number(self, step: _Step) -> _Step | None:
        """In a sequence of numbered layers, the next lower one; None where that is a module."""
        numbers = self._numbers.get(step.above, ())
        lower = max((number for number in numbers if number < int(step.own)), default=None)
        near = None if lower is None else self.by_name.get(f"{step.above}{lower}")
        return near if near is not None and near.weight is not None else None

    @cached_property
    def _numbers(self) -> dict[str, set[int]]:
        """The numbers of what is in each module: of layers and of other modules."""
        found: dict[str, set[int]] = defaultdict(set)
        for step in self.steps:
            for part in re.finditer(r"(?:^|(?<=[./]))[0-9]{1,9}(?=[./]|$)", step.name):
                found[step.name[: part.start()]].add(int(part[0]))
        return found

    def _directly_before(self, step: _Step) -> _Step | None:
        """What comes before a layer in its module, if it is no run of layers that follows it."""
        if step.place == 0 or self.is_sorted:
            return None
        near = self.steps[step.place - 1]
        after = self.steps[step.place + 1] if step.place + 1 < len(self.steps) else None
        in_run = after is not None and after.above == step.above and after.name in self.layers
        return near if near.weight is not None and near.above == step.above and not in_run else None

    def _axis(self, near: _Step, step: _Step) -> int | None:
        """The axis of a weight with as many output channels as a layer; None where there is none.

        PyTorch has them first, and second in transposed convolutions, which show by their bias,
        their name, or their place in a sequence. Keras, Flax and TensorFlow have them last.
        """
        width = self._width(step)
        shape = () if near.weight is None else near.weight.shape
        if near.bias is not None and near.bias.numel != width:
            return None
        last = len(shape) - 1
        if near.leaf in OUT_LAST:
            if shape[-1] == width:
                return last
            depthwise = near.leaf == "depthwise_kernel" and shape[-1] == 1
            return last - 1 if depthwise and shape[-2] == width else None
        if last == 1 and self.layers[step.name].naming.name == "paddle":
            return 1 if shape[1] == width else None
        if last >= 2 and _TRANSPOSED.search(near.name):
            return 1 if shape[1] == width else None
        if shape[0] == width:
            return 0
        sure = near.bias is not None or (near.own.isdecimal() and near.above == step.above)
        return 1 if last >= 2 and shape[1] == width and sure else None

    def _width(self, step: _Step) -> int:
        """The number of channels of a layer."""
        return next(ref.numel for ref in self.layers[step.name].tensors.values())


def _inputs(near: _Step, axis: int) -> int:
    """The number of input channels of a weight, of which this is the axis of the outputs."""
    assert near.weight is not None
    shape = near.weight.shape
    if near.leaf in OUT_LAST:
        return shape[-1] if axis == len(shape) - 2 else shape[-2]
    return shape[1 - axis] if axis < 2 else shape[0]


def _steps(file: TensorFile, layers: Mapping[str, LayerRefs]) -> Iterator[_Step]:
    """The layers of a file, each where its first tensor is; its counter may be elsewhere."""
    trees = any(map(has_trees, file.tensors))
    told = {full: name for name, stored in file.layers.items() for full in stored.tensors.values()}
    found: dict[str, dict[str, TensorRef]] = defaultdict(dict)
    for name, ref in file.tensors.items():
        if ref.numel == 1 and not _is_float(ref):
            continue
        layer, leaf = split_any(name, trees=trees)
        found[told.get(name, layer)].setdefault(leaf, ref)
    for place, (name, refs) in enumerate(found.items()):
        above, own = _parts(name)
        leaf = next((leaf for leaf in (*OUT_FIRST, *OUT_LAST) if leaf in refs), "")
        weight = refs.get(leaf)
        if name in layers or weight is None or weight.ndim < 2 or not _is_float(weight):
            yield _Step(name, place, above, own)
        else:
            named = (refs.get(bias) for bias in (*BIASES, "b"))
            bias = next((ref for ref in named if ref is not None and ref.ndim == 1), None)
            yield _Step(name, place, above, own, weight, leaf, bias)


def _parts(name: str) -> tuple[str, str]:
    """The module that a layer is in, with its dot, and its own name.

    Keras keeps a layer's tensors in a group of its name inside of another: conv1/conv1.
    """
    cut = max(name.rfind("."), name.rfind("/")) + 1
    above, own = name[:cut], name[cut:]
    outer = above.removesuffix(f"{own}/")
    doubled = outer != above and (not outer or outer.endswith("/"))
    return (outer if doubled else above), own


def _is_float(ref: TensorRef) -> bool:
    return ref.dtype in DTYPES and DTYPES[ref.dtype].kind == "float"


def _alike(step: _Step) -> list[str]:
    """The names in lower case that the layer in front may have, by that of the layer."""
    names = [step.above.rstrip("./").lower()] if _NORM.fullmatch(step.own) else []
    where = list(_NORM.finditer(step.own))
    above, own = step.above, step.own
    if not where and own.isdecimal():  # mlp_bns.0 and mlp_convs.0
        cut = max(above.rfind(".", 0, -1), above.rfind("/", 0, -1)) + 1
        above, own = above[:cut], above[cut:] + own
        where = list(_NORM.finditer(own))
    if where:
        start, end = where[-1].span()
        for instead in _INSTEAD:
            head, tail = own[:start], own[end:]
            if not instead:
                head, tail = head.rstrip("_"), tail if head.rstrip("_") else tail.lstrip("_")
            if not f"{head}{instead}{tail}".isdecimal():
                names.append(f"{above}{head}{instead}{tail}".lower())
    return list(dict.fromkeys(name for name in names if name))


def _pattern(step: _Step) -> str:
    """A name without its numbers, which all layers of its kind in the network have."""
    own = step.own
    if own.isdecimal() and step.above:
        own = re.split(r"[./]", step.above)[-2]
    return re.sub(r"[0-9]+", "#", own)
