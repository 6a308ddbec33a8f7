"""Whether all ranks of a distributed run have the same model: its parameters and buffers."""

from __future__ import annotations

import json
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from bncli.backends.torch.tensors import library
from bncli.light import np
from bncli.live.weights import crc_of
from bncli.model.ranks import RankDifference, RankTensor, differences
from bncli.process.ranks import current

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import nn

SAME, OTHER = "same", "other"
LARGEST = 1 << 20
"""Values of a BatchNorm layer's tensor up to which they are sent themselves."""


def audited(model: nn.Module | None, layers: Collection[str]) -> list[RankDifference]:
    """In which tensors the ranks' models differ, on rank 0; none where all are the same.

    Where they differ, the other ranks leave the command here. `layers` are the BatchNorm layers. A
    rank without work has no `model`, and is not compared.
    """
    ranks = current()
    states = ranks.collect("state", b"" if model is None else packed(state_of(model, layers)))
    found: list[RankDifference] = []
    if states is not None:
        there = {rank: unpacked(state) for rank, state in enumerate(states) if state}
        found = differences(there)
    verdict = ranks.agree("state", (OTHER if found else SAME) if ranks.leads else None)
    if verdict == OTHER:
        ranks.gather(b"")
    return found


def state_of(model: nn.Module, layers: Collection[str]) -> dict[str, RankTensor]:
    """Every parameter and buffer of a model, those that are not saved as well."""
    state: dict[str, RankTensor] = {}
    named = (
        *model.named_parameters(remove_duplicate=False),
        *model.named_buffers(remove_duplicate=False),
    )
    for name, tensor in named:
        with suppress(RuntimeError, ValueError, NotImplementedError):  # one that is not filled yet
            in_norm = name.rpartition(".")[0] in layers and tensor.numel() <= LARGEST
            state[name] = RankTensor(
                str(tensor.dtype).removeprefix("torch."),
                tuple(tensor.shape),
                _crc(tensor),
                _values(tensor) if in_norm else None,
            )
    return state


def packed(state: Mapping[str, RankTensor]) -> bytes:
    """A state as the bytes of an .npz without pickles."""
    rows = [[name, each.dtype, each.shape, each.crc] for name, each in state.items()]
    arrays = {
        str(number): each.values
        for number, each in enumerate(state.values())
        if each.values is not None
    }
    stream = BytesIO()
    header = np.frombuffer(json.dumps(rows).encode(), np.uint8)
    np.savez(stream, allow_pickle=False, header=header, **arrays)
    return stream.getvalue()


def unpacked(data: bytes) -> dict[str, RankTensor]:
    """What `packed` was given."""
    with np.load(BytesIO(data), allow_pickle=False) as members:
        arrays = {name: members[name] for name in members.files}
    rows = json.loads(arrays["header"].tobytes())
    return {
        name: RankTensor(dtype, tuple(shape), crc, arrays.get(str(number)))
        for number, (name, dtype, shape, crc) in enumerate(rows)
    }


def _crc(tensor: Any) -> int | None:
    """The CRC-32 of a tensor's elements; None where it has no bytes of its own."""
    try:
        return crc_of(tensor)
    except (RuntimeError, TypeError, NotImplementedError):  # on no device, quantised
        return None


def _values(tensor: Any) -> Any:
    """The values, float64 and flat; None for what has none."""
    if tensor.is_complex():
        return None
    try:
        return tensor.detach().to("cpu", library().float64).reshape(-1).numpy()
    except (RuntimeError, TypeError, NotImplementedError):
        return None
