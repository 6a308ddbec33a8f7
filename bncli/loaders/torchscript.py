"""TorchScript archives: the ZIP layout of `torch.save` with the program's code beside it."""

from __future__ import annotations

from bncli.loaders.interface import Source
from bncli.loaders.torch_zip import read_archive, root_folder
from bncli.model import TensorFile


def detect(source: Source) -> bool:
    """Whether the file is an archive with a data.pkl and a constants.pkl in the same folder."""
    if source.archive is None:
        return False
    folder = root_folder(source.archive, "data.pkl")
    return folder is not None and f"{folder}/constants.pkl" in source.archive.members


def open_tensors(source: Source) -> TensorFile:
    """Parameters, buffers and other tensors by their module path; the code stays unread."""
    contents = read_archive(source)
    return contents.file(source.path, "torchscript")
