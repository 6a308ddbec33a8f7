"""Folders of torch.distributed.checkpoint, written piece by piece with PyTorch's own classes."""

import pickle

import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

from .files import saved


class Writer:
    """The pieces of a checkpoint, as several ranks would write them."""

    def __init__(self):
        self.files = {}
        self.described = {}
        self.places = {}

    def bytes(self, name, data=b"x", file="__0_0.distcp"):
        """Something that is not a tensor."""
        self.described[name] = BytesStorageMetadata()
        self.places[MetadataIndex(name)] = self.put(file, data)

    def put(self, file, data, **more):
        """Bytes at the end of a file; where they lie."""
        before = self.files.get(file, b"")
        self.files[file] = before + data
        return _StorageInfo(file, len(before), len(data), **more)

    def tensor(self, name, tensor, boxes=None, **more):
        """A tensor in pieces: (offsets, sizes, file) each; all of it in one file for None."""
        boxes = boxes or [((0,) * tensor.ndim, tuple(tensor.shape), "__0_0.distcp")]
        chunks = []
        for offsets, sizes, file in boxes:
            where = tuple(slice(a, a + n) for a, n in zip(offsets, sizes, strict=True))
            piece = tensor[where] if len(boxes) == 1 else tensor[where].clone()
            self.places[MetadataIndex(name, offsets)] = self.put(file, saved(piece), **more)
            chunks.append(ChunkStorageMetadata(torch.Size(offsets), torch.Size(sizes)))
        self.described[name] = TensorStorageMetadata(
            TensorProperties.create_from_tensor(tensor), tensor.size(), chunks
        )

    def parts(self):
        """The files by name."""
        index = Metadata(self.described, storage_data=self.places)
        return {".metadata": pickle.dumps(index), **self.files}

    def write(self, folder):
        """Put the files into a folder, which is given."""
        folder.mkdir(exist_ok=True)
        for name, data in self.parts().items():
            (folder / name).parent.mkdir(exist_ok=True, parents=True)
            (folder / name).write_bytes(data)
        return folder


def small():
    """A checkpoint of two ranks."""
    torch.manual_seed(5)
    tensors = {
        "model.conv.weight": torch.randn(4, 2, 3, 3),
        "model.bn.weight": torch.rand(5),
        "model.bn.bias": torch.randn(5),
        "model.bn.running_mean": torch.randn(5),
        "model.bn.running_var": torch.rand(5),
        "model.bn.num_batches_tracked": torch.tensor(9),
        "half": torch.randn(3, 4).bfloat16(),
    }
    writer = Writer()
    for name, tensor in tensors.items():
        boxes = None
        if tensor.ndim and name != "model.bn.bias":
            rest = tuple(tensor.shape[1:])
            zeros = (0,) * len(rest)
            first = tensor.shape[0] // 2
            boxes = [
                ((0, *zeros), (first, *rest), "__0_0.distcp"),
                ((first, *zeros), (tensor.shape[0] - first, *rest), "__1_0.distcp"),
            ]
        writer.tensor(name, tensor, boxes)
    writer.bytes("step", saved(3))
    return writer, tensors
