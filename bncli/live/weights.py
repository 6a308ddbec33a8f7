"""A checkpoint's weights put into a model, and the fingerprint of what is in one.

The checkpoint is read as every file of bncli's is: tensor by tensor, and nothing in it is run.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bncli.backends.torch.tensors import library
from bncli.dtypes import DTYPES
from bncli.errors import FileError, MissingTensorError, ModelError, TensorError
from bncli.gate.places import names_of, unwrapped
from bncli.light import dataclass, np
from bncli.live.users_code import users_code
from bncli.loaders import open_model, split_spec
from bncli.loaders.names import listed, nearest, quoted

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bncli.model import TensorRef
    from bncli.report import Value

COUNTER = "num_batches_tracked"
"""A buffer that a checkpoint may lack: no output depends on it."""
RUNNING = frozenset({"running_mean", "running_var", COUNTER})
"""What a BatchNorm layer estimates while the model is trained."""
SHOWN = 5
"""How many keys a sentence names."""


@dataclass(frozen=True, slots=True)
class Part:
    """What lies under one prefix of a checkpoint: the tensor for each of the model's keys.

    `left_over` names the tensors under the prefix that the model has no place for.
    """

    prefix: str
    found: Mapping[str, TensorRef]
    left_over: tuple[str, ...]


def load_weights(model: nn.Module, spec: str, *, allow_missing: bool = False) -> dict[str, Value]:
    """Put the tensors of a checkpoint, `FILE` or `FILE::PART`, into the model; no dtype changes.

    Of several dictionaries in the file the one that fits is taken: that under which most of the
    model's keys are found, whatever wrappers stand before them on either side. Returns what was
    done: `path`, `part`, `keys` (the number of keys loaded), `missing` (the names that were
    missing), `converted` (such as "float16 to float32 in 12 tensors"), and `n_averaged`, what the
    checkpoint's AveragedModel counted, None where the weights are no such average.

    A num_batches_tracked that is missing is None afterwards: nobody knows it.

    Raises MissingTensorError where no part fits, two fit equally, or keys are missing
    (unless `allow_missing`) or left over, ModelError for a shape that differs, and FileError and
    TensorError for what cannot be read. The model is as before then, unless a damaged tensor was
    met.
    """
    path, name = split_spec(spec)
    targets = _targets(model)
    tensors = open_model(path).tensors
    part = _fitting(path, tensors, name, targets)
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
            f"the model has {_few(lazy)} without a shape before the first forward pass (lazy "
            "layers); run a batch through the model in the function that builds it."
        )
    return tensors


# ------------------------------------------------------------------ the part that fits


def _fitting(
    path: Path, tensors: Mapping[str, TensorRef], name: str, targets: Mapping[str, Tensor]
) -> Part:
    """The part of the file with most of the model's keys; raises MissingTensorError."""
    inside = _under(path, tensors, name)
    own = {unwrapped(key): key for key in targets} | {key: key for key in targets}
    inner = names_of(tuple(targets)).bare  # the model may be wrapped, and not the checkpoint
    found, counted, most = max(
        (_found(inside, keys) for keys in (own, {inner(key): key for key in targets})),
        key=lambda each: each[2],  # the first of equals
    )
    if not most:
        raise MissingTensorError(
            path,
            f"none of the model's {len(targets)} tensors is in it; it has "
            f"{_few(inside)}, and the model has {_few(targets)}.",
        )
    # The same tensors under a longer prefix are the same part.
    best: dict[tuple[str, ...], str] = {}
    for prefix, keys in found.items():
        if counted[prefix] == most:
            same = tuple(sorted(ref.name for ref in keys.values()))
            best[same] = max(best.get(same, ""), prefix, key=len)
    prefixes = sorted(best.values())
    if len(prefixes) > 1 and "" not in prefixes:
        parts = [prefix.rstrip("./") for prefix in prefixes]
        raise MissingTensorError(
            path,
            f"{listed(parts, ' and ', mark=_QUOTE)} fit the model equally; say which with "
            f"--checkpoint {quoted(str(path))}::{quoted(parts[0])}.",
        )
    prefix = prefixes[0]
    used = {ref.name for ref in found[prefix].values()}
    left = tuple(each for each in inside if each.startswith(prefix) and each not in used)
    return Part(prefix.rstrip("./"), found[prefix], left)


_QUOTE = "'"
_ENDS = re.compile(r"[./]")


def _under(path: Path, tensors: Mapping[str, TensorRef], name: str) -> Mapping[str, TensorRef]:
    """The tensors whose names begin with the part that the user named, all for none."""
    if not name:
        return tensors
    inside = {
        each: ref for each, ref in tensors.items() if each.startswith((f"{name}.", f"{name}/"))
    }
    if inside:
        return inside
    parts = dict.fromkeys(each[: end.start()] for each in tensors for end in _ENDS.finditer(each))
    alike = [each for each in parts if len(_ENDS.findall(each)) == len(_ENDS.findall(name))]
    near = nearest(alike, name) or [each for each in parts if not _ENDS.search(each)]
    instead = f"; did you mean {listed(near[:SHOWN], ' or ')}?" if near else "."
    raise MissingTensorError(path, f"there is no part '{quoted(name)}' in it{instead}")


def _found(
    tensors: Mapping[str, TensorRef], keys: Mapping[str, str]
) -> tuple[dict[str, dict[str, TensorRef]], dict[str, int], int]:
    """For each prefix, with its "." or "/", the tensors by key of the model; how many; the most.

    `keys` has the model's keys by the names that are looked for. Counters are not counted.
    """
    found: dict[str, dict[str, TensorRef]] = defaultdict(dict)
    for name, ref in tensors.items():
        for start in (0, *(end.end() for end in _ENDS.finditer(name))):
            key = keys.get(name[start:]) or keys.get(unwrapped(name[start:]))
            if key is not None:
                found[name[:start]].setdefault(key, ref)
    counted = {
        prefix: sum(not key.endswith(COUNTER) for key in inside) for prefix, inside in found.items()
    }
    return found, counted, max(counted.values(), default=0)


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
        problems.append(f"it lacks {_few(missing)}, which the model has")
    if part.left_over:
        problems.append(f"it has {_few(part.left_over)}, which the model lacks")
    if problems:
        where = f"under '{quoted(part.prefix)}' " if part.prefix else ""
        advice = "check MODEL and its --arg"
        if missing and not part.left_over:
            advice += ", or accept that with --allow-missing-keys"
        raise MissingTensorError(path, f"{where}{', and '.join(problems)}; {advice}.")
    return missing


def _few(names: Iterable[str]) -> str:
    """The first of them, and how many there are: "3 keys (a, b, c)"."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    keys = "key" if len(every) == 1 else "keys"
    return f"{len(every)} {keys} ({listed(every[:SHOWN])}{more})" if every else "no keys"


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
    """CRC-32 sums of the model's tensors, each of 8 hexadecimal digits.

    `running_statistics` is of running_mean, running_var and num_batches_tracked of the layers that
    have them, `weights` of all other parameters and persistent buffers. Each is the sum of the
    lines "name crc" with the tensor's own sum, ordered by the names without wrappers, so that the
    order of the layers and a wrapper do not matter, and a checkpoint's sums say the same.
    """
    tensors = {
        name: value
        for name, value in model.state_dict().items()
        if isinstance(value, library().Tensor)
    }
    bare = names_of(tuple(tensors)).bare
    sums: dict[str, list[str]] = {"weights": [], "running_statistics": []}
    for name, value in tensors.items():
        leaf = name.rpartition(".")[2]
        which = "running_statistics" if leaf in RUNNING else "weights"
        sums[which].append(f"{bare(name)} {crc_of(value):08x}\n")
    return {
        which: f"{zlib.crc32(''.join(sorted(lines)).encode()):08x}" for which, lines in sums.items()
    }


def crc_of(tensor: Any) -> int:
    """The CRC-32 of a tensor's elements, in their order, as they lie in memory."""
    import torch

    if tensor.is_sparse:
        tensor = tensor.to_dense()
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return zlib.crc32(flat.view(torch.uint8).numpy()) if flat.numel() else 0


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
