"""TensorFlow's checkpoints (an index and data files) and the variables of its SavedModels.

What the graph beside them says of BatchNorm layers is read too; nothing of a graph is run.
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from bncli.errors import CorruptFileError, FileError, UnsupportedFileError
from bncli.loaders.beside import beside
from bncli.loaders.interface import Source, check_regular, open_source
from bncli.loaders.names import quoted
from bncli.loaders.probes import is_saved_model
from bncli.loaders.tensorflow.bundle import INDEX, Bundle, tensor_refs
from bncli.loaders.tensorflow.described import Described
from bncli.loaders.tensorflow.graph import program_of
from bncli.loaders.tensorflow.norms import found_in
from bncli.loaders.tensorflow.objects import names_of
from bncli.loaders.tensorflow.table import is_table
from bncli.model import TensorFile

CONTAINER = "tensorflow"
LATEST = "checkpoint"
"""The text file in which TensorFlow notes the latest checkpoint of a folder."""
GRAPH = "saved_model.pb"
VARIABLES = Path("variables", "variables.index")
"""Where a SavedModel has its weights."""
AVERAGE = "ExponentialMovingAverage"
"""What follows a variable's name in the name of its moving average."""
VARIABLES_OF_NORMS = ("gamma", "beta", "moving_mean", "moving_variance")
_PART = re.compile(r"(.*)(?:\.data-\d{5}-of-\d{5}|\.meta)")
NOTE = b"model_checkpoint_path:"
_NOTE = re.compile(rb'model_checkpoint_path: "([^"\n]*)"')


def detect(source: Source) -> bool:
    """Whether it is the index of a checkpoint, the note of the latest, or a SavedModel's graph."""
    return is_table(source) or source.head.startswith(NOTE) or is_saved_model(source)


def open_tensors(source: Source) -> TensorFile:
    """The tensors of the checkpoint, in the order of their bytes."""
    if is_table(source):
        return _open_index(source)
    if source.head.startswith(NOTE):
        return _open_path(_latest(source))
    return open_folder(source.path.parent)


def whole_of(path: Path) -> Path | None:
    """The index to which a data file or a graph belongs, or that is called by its prefix."""
    fits = _PART.fullmatch(path.name)
    index = path.with_name(f"{path.name if fits is None else fits[1]}{INDEX}")
    return index if os.path.lexists(index) else None


def is_whole(folder: Path) -> bool:
    """Whether the folder is a SavedModel, the variables of one, or has a note of the latest."""
    try:
        if (folder / GRAPH).is_file() or (folder / VARIABLES.name).is_file():
            return True
        if not (folder / LATEST).is_file():
            return False
        with open_source(folder / LATEST) as source:
            return source.head.startswith(NOTE)
    except (OSError, FileError):
        return False


def open_folder(folder: Path) -> TensorFile:
    """The tensors of a SavedModel, or of the latest checkpoint in the folder."""
    if (folder / GRAPH).is_file():
        index = folder / VARIABLES
        if not index.exists():
            raise UnsupportedFileError(
                folder / GRAPH,
                f"it is the graph of a TensorFlow SavedModel, whose weights in {VARIABLES} are"
                " missing; copy that folder too, or name the checkpoint that it was made from.",
            )
        return replace(_open_path(index), path=folder)
    if (folder / VARIABLES.name).is_file():
        return _open_path(folder / VARIABLES.name)
    with open_source(folder / LATEST) as source:
        return _open_path(_latest(source))


def _latest(source: Source) -> Path:
    """The index of the checkpoint that a note names, in the note's own folder."""
    fits = _NOTE.match(source.head)
    noted = "" if fits is None else fits[1].decode("utf-8", "replace")
    index = beside(source.path, f"{noted.rpartition('/')[2]}{INDEX}")
    if fits is None or not index.is_file():
        raise CorruptFileError(
            source.path,
            f"it names {quoted(noted) or 'nothing'} as the latest checkpoint, but"
            f" {quoted(index.name)} is not beside it; name the index of the checkpoint that is"
            " there.",
        )
    return index


def _open_path(index: Path) -> TensorFile:
    check_regular(index)
    with open_source(index) as source:
        if not is_table(source):
            raise CorruptFileError(
                index,
                "it should be the index of a TensorFlow checkpoint, but does not end as one; it is"
                " cut short or damaged, so download or copy it again.",
            )
        return _open_index(source)


def _open_index(source: Source) -> TensorFile:
    bundle = Bundle(source)
    names, shared = names_of(bundle)
    refs, skipped = tensor_refs(bundle, names)
    tensors = {ref.name: ref for ref in refs}
    averages = sum(map(_is_average, tensors))
    if averages:
        skipped[f"*/{AVERAGE}"] = (
            f"there are {averages} moving averages of BatchNorm's variables, which inference may"
            " use; the variables themselves are judged"
        )
    graph = _graph_of(source.path)
    if graph is None:
        return TensorFile(source.path, CONTAINER, tensors, skipped=skipped)
    try:
        with open_source(graph) as other:
            program = program_of(other, saved_model=graph.name == GRAPH)
        described = Described(*found_in(program), tensors, shared)
    except FileError as error:
        skipped[graph.name] = (
            f"what it says of the layers cannot be used, as {error.problem.removesuffix('.')}"
        )
        return TensorFile(source.path, CONTAINER, tensors, skipped=skipped)
    skipped |= described.skipped
    return TensorFile(source.path, CONTAINER, tensors, described.modules, skipped, described.layers)


def _is_average(name: str) -> bool:
    """Whether it is TensorFlow's moving average of a BatchNorm layer's variable."""
    variable, _, last = name.rpartition("/")
    return last == AVERAGE and variable.rpartition("/")[2] in VARIABLES_OF_NORMS


def _graph_of(index: Path) -> Path | None:
    """The graph that was saved with a checkpoint: beside it, or above a SavedModel's variables."""
    beside = index.with_name(f"{index.name.removesuffix(INDEX)}.meta")
    above = index.parent.parent / GRAPH
    if beside.is_file():
        return beside
    inside = (index.parent.name, index.name) == VARIABLES.parts
    return above if inside and above.is_file() else None
