"""What keeps a tensor of a file from getting new values where it is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING

from bncli.errors import UnsupportedFileError
from bncli.given import is_given
from bncli.loaders.interface import STANDARD_INPUT
from bncli.loaders.names import quoted
from bncli.loaders.patches.checksums import TORCHSCRIPT
from bncli.loaders.patches.views import placed, repeats, shared
from bncli.loaders.sharded import open_shard

if TYPE_CHECKING:
    from bncli.model import TensorFile, TensorRef

NESTED = " in zip"
"""How the name of a container ends whose files lie in another archive."""
PLAIN = frozenset(("torch-zip", "torch-legacy", "safetensors", "npz", "npy"))
"""The containers whose tensors can be replaced."""


def check_container(file: TensorFile) -> None:
    """Raise UnsupportedFileError where no tensor of the file can be replaced."""
    if file.path == STANDARD_INPUT:
        raise UnsupportedFileError(
            file.path, "standard input cannot be edited; save it to a file and name that."
        )
    if is_given(file.path):
        raise UnsupportedFileError(
            file.path,
            "an object in memory cannot be edited as a file; save it with torch.save and name that "
            "file.",
        )
    containers = file.container.removesuffix(NESTED).split(" and ")
    if set(containers) == {"torchscript"}:
        raise UnsupportedFileError(file.path, TORCHSCRIPT)
    if PLAIN.isdisjoint(containers) or " in " in containers[-1]:
        raise UnsupportedFileError(
            file.path,
            f"tensors in {file.container} files cannot be replaced; save them with torch.save or "
            "as safetensors, and name that file.",
        )


def check_plain(ref: TensorRef, file: TensorFile) -> None:
    """Raise UnsupportedFileError where a tensor's elements are not plain bytes of their own."""
    name, save = named(ref.name), "torch.save, which does not compress"
    if file.container == "npz":
        save = "np.savez, which does not compress"
    if ref.storage is None:
        problem = f"the values of {name} cannot be replaced ({ref.unreadable}); save it as a plain "
        raise UnsupportedFileError(ref.path, f"{problem}tensor, and run again.")
    if ref.origin is not None and ref.origin[0] == -1:
        raise UnsupportedFileError(
            ref.path,
            f"{name} is a NumPy array inside the pickle, which stays as it is; save it as a tensor "
            "(torch.from_numpy) and run again.",
        )
    if placed(ref) is None and ref.numel:
        raise UnsupportedFileError(
            ref.path,
            f"{name} is compressed, so that its bytes cannot be replaced; save the file again with "
            f"{save}, and run again.",
        )
    if placed(ref) is not None and repeats(ref):
        raise UnsupportedFileError(
            ref.path,
            f"several elements of {name} are the same bytes, so they cannot have values of their "
            "own; save it again after .clone(), and run again.",
        )


def check_alone(file: TensorFile, targets: Mapping[str, TensorRef]) -> None:
    """Raise UnsupportedFileError where another tensor takes some of a target's bytes.

    A further name of the same tensor may change with it where it ends in the same word, as in a
    layer with two names: what is running_mean here and a bias there may not. A shard may hold
    tensors that its index does not list.
    """
    tensors = [*file.tensors.values()]
    for path in {ref.path for ref in targets.values()} - {file.path}:
        tensors += open_shard(path).tensors.values()
    first = {ref.place: ref for ref in targets.values()}
    names = (
        (target, ref)
        for ref in tensors
        if ref.place is not None
        and (target := first.get(ref.place))
        and _leaf(target.name) != _leaf(ref.name)
    )
    for target, other in chain(names, shared(tensors, targets.values())):
        raise UnsupportedFileError(
            target.path,
            f"{named(target.name)} shares bytes with {named(other.name)}, which would change, "
            "too; save the file again after .clone() of one of them, and run again.",
        )


def _leaf(name: str) -> str:
    """The last word of a tensor's name."""
    return name.replace("/", ".").rpartition(".")[2]


def named(name: str) -> str:
    """A tensor's name, for a sentence about its file."""
    return f"'{quoted(name)}'" if name else "the tensor"
