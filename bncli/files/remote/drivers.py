"""The driver of a URL's scheme, and what to install where it is missing."""

from __future__ import annotations

from typing import Any

from bncli.errors import FileError
from bncli.files.remote.failures import explained
from bncli.paths import RemotePath

EXTRA = "python -m pip install fsspec aiohttp"
PACKAGES = {
    "http": "aiohttp",
    "https": "aiohttp",
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
    "az": "adlfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "adl": "adlfs",
    "sftp": "paramiko",
    "ssh": "paramiko",
    "smb": "smbprotocol",
    "webhdfs": "requests",
    "hdfs": "pyarrow",
    "oci": "ocifs",
    "oss": "ossfs",
}
"""What a driver needs besides fsspec."""


def file_system(path: RemotePath) -> tuple[Any, str]:
    """The file system of fsspec's, and the path in it. Raises FileError."""
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations, registry
    except ImportError:
        raise FileError(path, f"a path of this kind needs fsspec: {EXTRA}.") from None
    scheme = path.scheme
    if scheme not in known_implementations and scheme not in registry:
        raise FileError(path, f"fsspec has no driver for {scheme}://.")
    try:
        system, inside = url_to_fs(path.url)
    except ImportError:
        package = PACKAGES.get(scheme)
        what = f"python -m pip install {package}" if package else "see fsspec's list of its drivers"
        raise FileError(path, f"the driver for {scheme}:// is not installed: {what}.") from None
    except Exception as error:  # noqa: BLE001 (whatever a driver raises)
        raise explained(path, error) from None
    return system, inside
