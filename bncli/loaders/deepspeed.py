"""DeepSpeed's checkpoint: a folder a step, with the model's states of each rank in files.

torch.save writes these. The buffers lie there, and the parameters too, unless ZeRO has cut these
into partitions of all ranks, which are not put together here.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from bncli.errors import FileError, UnsupportedFileError
from bncli.files.reading import open_to_read
from bncli.loaders.beside import beside
from bncli.loaders.names import listed, quoted
from bncli.loaders.sharded import open_shard
from bncli.model import BatchNormModule, TensorFile, TensorRef

LATEST = "latest"
"""The file beside the folders of the steps that names the last of these."""
LONGEST_TAG = 255
MODEL = re.compile(r"(?P<zero>zero_pp_rank_(?P<data>\d+)_)?mp_rank_(?P<rank>\d+)_model_states\.pt")
"""The states of a rank of tensor parallelism; with ZeRO's third stage, of each data rank of it."""
LAYER = re.compile(r"(?P<layer>layer_\d+)(?:-model_(?P<rank>\d+))?-model_states\.pt")
"""The states of a layer of a pipeline."""
PARTITION = re.compile(r".*_optim_states\.pt")
IN_PARTITIONS = (
    "ZeRO keeps its values in partitions of all ranks, the *_optim_states.pt, which are not put"
    " together here; the folder's zero_to_fp32.py does it"
)


def whole_of(path: Path) -> Path | None:
    """The folder of a step, for a file in it; the folder above, for the name of the last step."""
    if not os.path.lexists(path):
        return None
    if any(kind.fullmatch(path.name) for kind in (MODEL, LAYER, PARTITION)):
        return path.parent if _states(path.parent) else None
    return path.parent if path.name == LATEST and is_whole(path.parent) else None


def is_whole(folder: Path) -> bool:
    """Whether the folder is that of a step, or has folders of steps and the name of the last."""
    if _states(folder):
        return True
    if not (folder / LATEST).is_file():
        return False
    return any(_states(folder / name) for name in _listed(folder))


def open_folder(folder: Path) -> TensorFile:
    """The tensors of the model in a step, by their names in its state_dict.

    Those of several ranks of tensor parallelism, each of which holds a part of the model, come
    behind the rank's name. Of several ranks of data parallelism, the first is read.
    """
    step = folder if _states(folder) else _last(folder)
    states = [name for name in _states(step) if _of_first_data_rank(name)]
    if not states:
        raise FileError(step, "the model's states of the first rank are missing; copy them too.")
    ranks = {fits["rank"] for name in states if (fits := MODEL.fullmatch(name)) is not None}
    tensors: dict[str, TensorRef] = {}
    modules: dict[str, BatchNormModule] = {}
    skipped: dict[str, str] = {}
    for name in states:
        file = open_shard(step / name)
        begin = _prefix(name, several=len(ranks) > 1)
        inside = "" if LAYER.fullmatch(name) else "module."
        for full, ref in file.tensors.items():
            if not full.startswith(inside):
                continue
            own = f"{begin}{full.removeprefix(inside)}"
            if ref.numel == 0 and MODEL.fullmatch(name):
                skipped[own] = IN_PARTITIONS
            else:
                tensors[own] = replace(ref, name=own)
        modules |= {
            f"{begin}{full.removeprefix(inside)}": module
            for full, module in file.modules.items()
            if full.startswith(inside)
        }
    for name in _states(step):
        if not _of_first_data_rank(name):
            skipped[name] = "it has the buffers of another rank; those of the first are read"
    return TensorFile(step, "deepspeed", tensors, modules, skipped)


def _of_first_data_rank(name: str) -> bool:
    fits = MODEL.fullmatch(name)
    return fits is None or not fits["zero"] or int(fits["data"]) == 0


def _prefix(name: str, *, several: bool) -> str:
    """What stands before the names of the tensors of a file."""
    layer, model = LAYER.fullmatch(name), MODEL.fullmatch(name)
    if layer is not None:
        rank = int(layer["rank"] or 0)
        return f"mp_rank_{rank:02d}.{layer['layer']}." if rank else f"{layer['layer']}."
    return f"mp_rank_{model['rank']}." if model is not None and several else ""


def _last(folder: Path) -> Path:
    """The folder of the last step, which the file `latest` names. Raises FileError."""
    latest = folder / LATEST
    try:
        with open_to_read(latest) as file:
            tag = file.read(LONGEST_TAG + 1).decode("utf-8", "replace").strip()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FileError(latest, f"it cannot be read ({reason}).") from error
    steps = [name for name in _listed(folder) if _states(folder / name)]
    if tag in steps:
        return beside(latest, tag)
    raise UnsupportedFileError(
        latest,
        f"it should name a folder beside it with a checkpoint, but it names"
        f" '{quoted(tag)}'; name the folder of a step ({listed(steps)}).",
    )


def _states(folder: Path) -> list[str]:
    """The names of the files with the model's states; a model that is a pipeline has no others."""
    names = _listed(folder)
    layers = [name for name in names if LAYER.fullmatch(name)]
    return layers or [name for name in names if MODEL.fullmatch(name)]


def _listed(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 (names, no paths)
    except OSError:
        return []
