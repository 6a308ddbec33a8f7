"""HDF5 files: those of Keras with its layers, all others as datasets by their paths.

`h5py` reads the structure, and is imported when such a file is opened. The values are read from
where they lie.
"""

from __future__ import annotations

from bncli.loaders import probes
from bncli.loaders.hdf5.region import Region
from bncli.loaders.interface import Source
from bncli.loaders.registry import ZIP
from bncli.model import TensorFile


def detect(source: Source) -> bool:
    """Whether HDF5's signature is there, and the file is not MATLAB's, which is refused as such."""
    begins_otherwise = source.head.startswith((b"MATLAB", *ZIP)) or probes.is_tar(source)
    return probes.is_hdf5(source) and not begins_otherwise


def open_tensors(source: Source) -> TensorFile:
    """The datasets by path; what cannot be read of them, and links, are said.

    Raises UnsupportedFileError without h5py, CorruptFileError for a damaged file.
    """
    from bncli.loaders.keras.model import open_region

    return open_region(Region(source.path, source.start, source.size))
