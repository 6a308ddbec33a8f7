"""Keras' archives (`.keras`): the config as JSON, the variables in an HDF5 file inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bncli.errors import UnsupportedFileError
from bncli.loaders.interface import Source
from bncli.loaders.zip_archive import STORED, ZipArchive
from bncli.model import TensorFile

if TYPE_CHECKING:
    from bncli.loaders.hdf5.region import Region

WEIGHTS = "model.weights.h5"
MOST_INFLATED = 1 << 27
"""What is kept in memory of a compressed file inside."""
LONGEST_CONFIG = 1 << 24
LONGEST_METADATA = 1 << 16
"""Keras writes three short texts."""


def detect(source: Source) -> bool:
    """Whether the file is an archive with Keras' file of variables in it."""
    return source.archive is not None and WEIGHTS in source.archive.members


def open_tensors(source: Source) -> TensorFile:
    """The variables by their paths in the file inside, and what the config says of the layers.

    Raises as the reader of HDF5 files.
    """
    from bncli.loaders.keras.model import Config, open_region

    archive = source.archive
    assert archive is not None
    config = Config(
        _text(archive, "config.json", LONGEST_CONFIG),
        _text(archive, "metadata.json", LONGEST_METADATA),
    )
    return open_region(_weights(archive), config)


def _weights(archive: ZipArchive) -> Region:
    """The HDF5 file inside: where it lies, or inflated."""
    from bncli.loaders.hdf5.region import Region

    member = archive.members[WEIGHTS]
    archive.check_readable(member)
    if member.method == STORED:
        plain = archive.plain(member)
        return Region(
            archive.path, plain.offset, plain.offset + plain.nbytes, checksum=plain.checksum
        )
    if member.size > MOST_INFLATED:
        raise UnsupportedFileError(
            archive.path,
            f"its member {WEIGHTS} is compressed and has {member.size} bytes; unzip it and name it"
            " (with -0, zip packs it so that it can be read where it is).",
        )
    data = archive.bytes_of(member, MOST_INFLATED)
    return Region(archive.path, 0, len(data), data=data)


def _text(archive: ZipArchive, name: str, most: int) -> bytes:
    """A member's bytes; none where it is missing, too long or cannot be had."""
    member = archive.members.get(name)
    if member is None or archive.problem(member) or member.size > most:
        return b""
    return archive.bytes_of(member, most)
