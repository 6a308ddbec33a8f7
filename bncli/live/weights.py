"""A checkpoint's weights put into a model, and the fingerprint of what is in one.

The checkpoint is read as every file of bncli's is: tensor by tensor, and nothing in it is run.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.backends.torch.tensors import library
from bncli.dtypes import DTYPES
from bncli.errors import FileError, MissingTensorError, ModelError, TensorError
from bncli.light import np
from bncli.live.fingerprints import fingerprint_of, summed
from bncli.live.parts import COUNTER, Part, few, fitting_part
from bncli.live.users_code import users_code
from bncli.loaders import open_model, split_spec
from bncli.loaders.names import quoted

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bncli.model import TensorRef
    from bncli.report import Value


_KEY = re.compile(r"[^\W\d]\w*(?:\.\w+)+")
"""A name in an ONNX graph that may be a state_dict's: others are of the exporter's constants."""


def load_weights(model: nn.Module, spec: str, *, allow_missing: bool = False) -> dict[str, Value]:
    """Put the tensors of a checkpoint, `FILE` or `FILE::PART`, into the model; no dtype changes.

    Of several dictionaries in the file the one that fits is taken: that under which most of the
    model's keys are found, whatever wrappers stand before them on either side. Returns what was
    done: `path`, `part`, `keys` (the number of keys loaded), `missing` (the names that were
    missing), `converted` (such as "float16 to float32 in 12 tensors"), `n_averaged`, what the
    checkpoint's AveragedModel counted, None where the weights are no such average, and
    `fingerprint`, the sum of the part's weights as they are stored.

    A num_batches_tracked that is missing is None afterwards: nobody knows it.

    Raises MissingTensorError where no part fits, two fit equally, or keys are missing
    (unless `allow_missing`) or left over, ModelError for a shape that differs, and FileError and
    TensorError for what cannot be read. The model is as before then, unless a damaged tensor was
    met.
    """
    path, name = split_spec(spec)
    targets = _targets(model)
    file = open_model(path)
    tensors = file.tensors
    if file.container.startswith("onnx"):
        keys = {name for name in tensors if name in targets or _KEY.fullmatch(name)}
        tensors = {name: ref for name, ref in tensors.items() if name in keys}
    part = fitting_part(path, tensors, name, targets)
    missing = _check_keys(path, part, targets, allow_missing=allow_missing)
    _check_shapes(path, part, targets)
    dtypes: Counter[str] = Counter()
    _forget_counters(model, [key for key in targets if key not in part.found])
    with library().no_grad():
        for key, ref in part.found.items():
            target = targets[key]
            _copy(ref, target)
            if ref.dtype != _dtype(target):
                dtypes[f"{ref.dtype} to {_dtype(target)}"] += 1
    return {
        "path": str(path),
        "part": part.prefix,
        "keys": len(part.found),
        "missing": list(missing),
        "converted": [f"{change} in {_tensors(count)}" for change, count in dtypes.items()],
        "n_averaged": _averaged(tensors, part.prefix),
        "fingerprint": fingerprint_of(part.refs)["weights"],
    }


def _averaged(tensors: Mapping[str, TensorRef], prefix: str) -> int | None:
    """The n_averaged beside what was loaded or above it."""
    for name, ref in tensors.items():
        root, _, leaf = name.rpartition(".")
        inside = not root or f"{prefix}.".startswith(f"{root}.")
        if leaf == "n_averaged" and ref.numel == 1 and inside:
            with suppress(TensorError, TypeError, ValueError):
                return int(ref.read().item())
    return None


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"


def _targets(model: nn.Module) -> dict[str, Tensor]:
    """The model's parameters and persistent buffers by key. Raises ModelError for lazy ones."""
    from torch.nn.parameter import is_lazy

    with users_code("reading the model's state_dict"):
        state = model.state_dict(keep_vars=True)
    tensors = {key: value for key, value in state.items() if isinstance(value, library().Tensor)}
    lazy = [key for key, value in tensors.items() if is_lazy(value)]
    if lazy:
        raise ModelError(
            f"the model has {few(lazy)} without a shape before the first forward pass (lazy "
            "layers); run a batch through the model in the function that builds it."
        )
    return tensors


# ------------------------------------------------------------------ what must agree


def _check_keys(
    path: Path, part: Part, targets: Mapping[str, Tensor], *, allow_missing: bool
) -> tuple[str, ...]:
    """The keys that are missing; raises MissingTensorError where there must be none."""
    loaded = {id(targets[key]) for key in part.found}  # a tensor that is shared has several keys
    missing = tuple(
        key
        for key, tensor in targets.items()
        if key not in part.found and id(tensor) not in loaded and not key.endswith(COUNTER)
    )
    problems = []
    if missing and not allow_missing:
        problems.append(f"it lacks {few(missing)}, which the model has")
    if part.left_over:
        problems.append(f"it has {few(part.left_over)}, which the model lacks")
    if problems:
        where = f"under '{quoted(part.prefix)}' " if part.prefix else ""
        advice = "check MODEL and its --arg"
        if missing and not part.left_over:
            advice += ", or accept that with --allow-missing-keys"
        raise MissingTensorError(path, f"{where}{', and '.join(problems)}; {advice}.")
    return missing


def _check_shapes(path: Path, part: Part, targets: Mapping[str, Tensor]) -> None:
    """Raise ModelError where a tensor does not fit into its place."""
    wrong = []
    for key, ref in part.found.items():
        target = targets[key]
        shape = tuple(target.shape)
        scalar = ref.numel == target.numel() == 1 and max(ref.ndim, len(shape)) <= 1
        if ref.shape != shape and not scalar:
            wrong.append(f"{quoted(key)} is {list(ref.shape)} in it and {list(shape)} in the model")
        elif DTYPES[ref.dtype].kind == "complex" and not target.is_complex():
            wrong.append(f"{quoted(key)} is {ref.dtype} in it and {_dtype(target)} in the model")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ModelError(
            f"{quoted(str(path))}: {', '.join(wrong[:3])}{more}; check MODEL and its --arg."
        )


def _copy(ref: TensorRef, target: Tensor) -> None:
    """Put a file's values into a tensor of the model."""
    try:
        target.data.copy_(
            library().from_numpy(np.require(ref.read(), requirements="W")).reshape(target.shape)
        )
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise FileError(
            ref.path, f"{quoted(ref.name)} cannot be put into the model ({error})."
        ) from error


def _forget_counters(model: nn.Module, missing: Iterable[str]) -> None:
    """Take away the fresh counters that the checkpoint lacks, where no update needs them."""
    for key in missing:
        owner, _, leaf = key.rpartition(".")
        module = model.get_submodule(owner)
        if leaf == COUNTER and getattr(module, "momentum", None) is not None:
            module.register_buffer(COUNTER, None)


# ------------------------------------------------------------------ fingerprints


def fingerprint(model: nn.Module) -> dict[str, str]:
    """The sums of the model's parameters and persistent buffers, as `summed` gives them."""
    return summed(
        {
            name: crc_of(value)
            for name, value in model.state_dict().items()
            if isinstance(value, library().Tensor)
        }
    )


def crc_of(tensor: Any) -> int:
    """The CRC-32 of a tensor's elements, in their order, as they lie in memory."""
    return zlib.crc32(bytes_of(tensor))


def bytes_of(tensor: Any) -> memoryview:
    """A tensor's elements, in their order, as they lie in memory."""
    import torch

    if tensor.is_sparse:
        tensor = tensor.to_dense()
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy() if flat.numel() else b"")


def tensors_in(value: Any) -> Iterator[Any]:
    """The tensors in nested tuples, lists and dictionaries, in order, dictionaries by key."""
    if isinstance(value, library().Tensor):
        yield value
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            yield from tensors_in(value[key])
    elif isinstance(value, list | tuple):
        for each in value:
            yield from tensors_in(each)
