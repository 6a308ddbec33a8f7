"""Which tensors of a file belong to a BatchNorm layer, by their names and shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bncli.dtypes import DTYPES
from bncli.errors import TensorError
from bncli.files.file_bytes import announce as announce_places
from bncli.light import dataclass
from bncli.model import BatchNormModule, BatchNormState, StoredLayer, TensorFile, TensorRef
from bncli.report import printable
from bncli.state_dict.names import TORCH, Naming, has_trees, in_torch, of_convention, split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.files.runs import Runs

VECTORS = ("running_mean", "running_var", "weight", "bias")
"""The tensors with one value a channel; the layer's dtype is that of the first."""


@dataclass(frozen=True, slots=True)
class LayerRefs:
    """The tensors of one layer, not read yet. `name` is the layer's full path in the file.

    The fields have PyTorch's names; `naming` says what the file calls them.
    """

    name: str
    weight: TensorRef | None = None
    bias: TensorRef | None = None
    running_mean: TensorRef | None = None
    running_var: TensorRef | None = None
    num_batches_tracked: TensorRef | None = None
    module: BatchNormModule | None = None
    naming: Naming = TORCH

    @property
    def tensors(self) -> dict[str, TensorRef]:
        """The tensors that are there, by PyTorch's names, those with one value a channel first."""
        named = ((leaf, getattr(self, leaf)) for leaf in (*VECTORS, "num_batches_tracked"))
        return {leaf: ref for leaf, ref in named if ref is not None}

    @property
    def has_statistics(self) -> bool:
        """Whether both running statistics are there."""
        return self.running_mean is not None and self.running_var is not None

    @property
    def has_affine(self) -> bool:
        """Whether weight or bias is there."""
        return self.weight is not None or self.bias is not None


def batch_norm_layers(file: TensorFile) -> list[LayerRefs]:
    """Every BatchNorm layer, in the file's order.

    A layer is one if the file stores its module and that is a BatchNorm; or if it has
    running_mean and running_var, one value a channel, and beside them a weight, a bias or a
    counter. So LayerNorm and GroupNorm stay out (no running statistics), as do normalisers of
    inputs (running statistics and nothing else) and modules stored as InstanceNorm. Statistics
    that are called mean and var, as Flax does, need a scale and a bias beside them. What the file
    itself calls a layer comes first.
    """
    return [layer for layer in possible_layers(file).values() if is_batch_norm(layer)]


def possible_layers(file: TensorFile) -> dict[str, LayerRefs]:
    """Everything in the file that could be a BatchNorm layer if the user says so, by name.

    That is what the file calls a layer, and whatever has running_mean and running_var, or a weight
    or bias of one axis. A part of a file has the layers of which it has all tensors. What the file
    calls a layer and `skipped` is none, and its tensors are no other's by their names.
    """
    whole = {
        name: stored
        for name, stored in file.layers.items()
        if all(full in file.tensors for full in stored.tensors.values())
    }
    told = {
        name: _told(file, name, stored)
        for name, stored in whole.items()
        if name not in file.skipped
    }
    taken = {full for stored in whole.values() for full in stored.tensors.values()}
    trees = any(map(has_trees, file.tensors))
    found: dict[str, dict[str, TensorRef]] = {}
    for name, ref in file.tensors.items():
        layer, leaf = split(name, trees=trees)
        if leaf and name not in taken and layer not in told:
            found.setdefault(layer, {}).setdefault(leaf, ref)
    layers = {}
    for name, refs in found.items():
        naming, names = in_torch(frozenset(refs))
        leaves = {leaf: refs[own] for leaf, own in names.items()}
        if leaves:
            layers[name] = LayerRefs(name, **leaves, module=file.modules.get(name), naming=naming)
    return told | {
        name: layer
        for name, layer in layers.items()
        if layer.has_statistics
        or any(ref is not None and ref.ndim == 1 for ref in (layer.weight, layer.bias))
    }


def _told(file: TensorFile, name: str, stored: StoredLayer) -> LayerRefs:
    """A layer of which the file itself says which tensors are its own.

    It is named as its tensors show; where their names say nothing, as its module's framework does.
    Vectors that keep axes of size 1 beside that of the channels, as Haiku's do, come without them.
    """
    refs = {leaf: _squeezed(file.tensors[full]) for leaf, full in stored.tensors.items()}
    module = file.modules.get(name)
    leaves = frozenset(split(full)[1] for full in stored.tensors.values())
    naming, names = in_torch(leaves)
    if module is not None and "running_var" not in names:
        naming = of_convention(module.convention) or naming
    return LayerRefs(name, **refs, module=module, naming=naming)


def _squeezed(ref: TensorRef) -> TensorRef:
    """A tensor with one axis where the others have size 1."""
    long = [axis for axis, size in enumerate(ref.shape) if size != 1] or [ref.ndim - 1]
    if ref.ndim < 2 or len(long) > 1:
        return ref
    return replace(ref, shape=(ref.shape[long[0]],), strides=(ref.strides[long[0]],))


def announce(layers: Iterable[LayerRefs]) -> None:
    """Say which layers will be read, so that few requests bring those of a file elsewhere.

    Nothing is read yet. Raises FileError where such a file is gone.
    """
    refs = (ref for layer in layers for ref in layer.tensors.values())
    announce_places(ref.storage for ref in refs if ref.ndim <= 1)


def read_state(layer: LayerRefs) -> BatchNormState:
    """The values of a layer's tensors, each of shape (num_features,), in their own dtype.

    bfloat16 and float8 come widened to float32; `dtype` names the stored one. `module` names the
    framework, where that is not PyTorch, even if the tensors' names alone tell it. Raises
    TensorError where a tensor cannot be read, is complex or has not one axis, or the counter is not
    one number.
    """
    state = _state(layer, lambda read, ref: read(ref))
    return replace(state, module=_with_convention(layer))


def _with_convention(layer: LayerRefs) -> BatchNormModule | None:
    """The layer's module; one of its naming's framework where the file says nothing of it."""
    module, naming = layer.module, layer.naming
    if module is not None and (module.eps is not None or module.has_momentum):
        return module
    if naming is TORCH or (module and of_convention(module.convention) is naming):
        return module
    module = module or BatchNormModule("BatchNorm", has_momentum=False)
    return replace(module, convention=naming.convention)


def read_tensors(
    layer: LayerRefs, runs: Runs | None = None
) -> tuple[BatchNormState, tuple[str, ...]]:
    """What can be read of a layer, as `read_state` gives it, and a sentence for all that cannot.

    What `runs` have of it is taken from these.

    A tensor without values of its own (quantised, meta, complex, of another shape) is None in the
    state, and `dtype` is that of one that can be read, None where there is none. Vectors whose
    lengths disagree are in the state, and a sentence says so; a counter that is not one real number
    is None, which its shape or dtype explains. A tensor that is damaged makes the file one that
    cannot be judged: FileError.
    """
    problems: list[str] = []

    def attempt(read: Callable[[TensorRef], Any], ref: TensorRef) -> Any:
        try:
            return read(ref)
        except TensorError as error:
            problems.append(printable(str(error)))
            return None

    counter = layer.num_batches_tracked
    if counter is not None and not _is_number(counter):
        layer = replace(layer, num_batches_tracked=None)
    state = _state(layer, attempt, runs)
    vectors = {leaf: getattr(state, leaf) for leaf in VECTORS}
    lengths = {leaf: len(values) for leaf, values in vectors.items() if values is not None}
    if len(set(lengths.values())) > 1:
        ref = next(ref for ref in (getattr(layer, leaf) for leaf in VECTORS) if ref is not None)
        where = printable(f"{ref.path}::{layer.name}" if layer.name else str(ref.path))
        counts = ", ".join(f"{leaf} has {length}" for leaf, length in lengths.items())
        problems.append(
            f"{where}: a BatchNorm layer has one value per channel, but its tensors disagree on"
            f" the number of channels ({counts})."
        )
    return state, tuple(problems)


def _state(
    layer: LayerRefs,
    attempt: Callable[[Callable[[TensorRef], Any], TensorRef], Any],
    runs: Runs | None = None,
) -> BatchNormState:
    """The layer's state, each of its tensors read by `attempt`, which may give None."""

    def read_counter(ref: TensorRef) -> int | float:
        return _counter(ref, runs)

    def read_vector(ref: TensorRef) -> NDArray[Any]:
        return _vector(ref, runs)

    counter = layer.num_batches_tracked
    tracked = None if counter is None else attempt(read_counter, counter)
    refs = {leaf: ref for leaf in VECTORS if (ref := getattr(layer, leaf)) is not None}
    values = {leaf: attempt(read_vector, ref) for leaf, ref in refs.items()}
    dtypes = (ref.dtype for leaf, ref in refs.items() if values[leaf] is not None)
    return BatchNormState(
        layer.name,
        **values,
        num_batches_tracked=tracked,
        dtype=next(dtypes, None),
        module=layer.module,
    )


def _counter(ref: TensorRef, runs: Runs | None) -> int | float:
    """The value of a tensor that must be one number."""
    _check_real(ref)
    if ref.numel != 1:
        raise TensorError(
            f"{ref.label}: num_batches_tracked is one number, but this has shape {ref.shape}."
        )
    number: int | float = ref.read(runs).reshape(()).item()
    return int(number) if isinstance(number, bool) else number


def _is_number(ref: TensorRef) -> bool:
    """Whether a tensor is one number; one whose values cannot be had may be."""
    kind = DTYPES[ref.dtype].kind if ref.dtype in DTYPES else ""
    return ref.numel == 1 and (ref.storage is None or kind not in ("bool", "complex"))


def _vector(ref: TensorRef, runs: Runs | None) -> NDArray[Any]:
    """The values of a tensor that must have one axis."""
    _check_real(ref)
    if ref.ndim != 1:
        raise TensorError(
            f"{ref.label}: a BatchNorm layer has one value per channel, but this has shape"
            f" {ref.shape}."
        )
    return ref.read(runs)


def _check_real(ref: TensorRef) -> None:
    """Raise where the values cannot be had or are complex."""
    if ref.storage is None:
        ref.stored()  # raises, and says why
    elif DTYPES[ref.dtype].kind == "complex":
        raise TensorError(
            f"{ref.label}: a BatchNorm layer holds real numbers, but this is {ref.dtype}."
        )


def is_batch_norm(layer: LayerRefs) -> bool:
    """Whether something in a file is a BatchNorm layer, as `batch_norm_layers` has them."""
    if layer.module is not None:
        class_name = layer.module.class_name
        if "InstanceNorm" in class_name:
            return False
        if "BatchNorm" in class_name:
            return True
    if layer.running_mean is None or layer.running_var is None:
        return False
    axes = {layer.running_mean.ndim, layer.running_var.ndim}
    if 1 not in axes or (len(axes) > 1 and layer.num_batches_tracked is None):
        return False  # one of one axis, and a counter: a BatchNorm whose other one is damaged
    if layer.naming.mean == "mean":  # the names of many other things
        return layer.weight is not None and layer.bias is not None
    return layer.has_affine or layer.num_batches_tracked is not None
