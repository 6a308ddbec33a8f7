"""What `--against` names: a library that bncli knows, or code of the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.backends import BackendName, installed
from bncli.errors import UsageError
from bncli.given import is_given, object_of

if TYPE_CHECKING:
    from bncli.backends.interface import Backend

KNOWN = tuple(name.value for name in BackendName)


def backend_named(spec: str) -> Backend:
    """The backend that is typed: "torch", or `package.module:name` or `file.py:name`, imported.

    In Python an object may be named. Raises UsageError for what is neither, MissingBackendError
    where the library is not installed, and as `bncli.live.imports.find` and `backend_of`.
    """
    if is_given(spec):
        return backend_of(object_of(spec))
    if spec in KNOWN:
        return installed(BackendName(spec))
    from bncli.live.imports import code_name, find
    from bncli.loaders.names import quoted

    code = code_name(spec)
    if code is None:
        raise UsageError(
            f"--against {quoted(spec)}: it is neither {' nor '.join(KNOWN)} nor code of yours; "
            "write that as package.module:name or file.py:name."
        )
    return backend_of(find(code, "BatchNorm"), str(code))


def backend_of(value: Any, name: str = "") -> Backend:
    """The backend that an object is: a backend as such, or a class or function of the user's.

    `name` is how it was chosen. Raises ModelError, and for a class or function of PyTorch's
    MissingBackendError, as `bncli.backends.users.users_backend`.
    """
    from bncli.backends.interface import Backend
    from bncli.backends.users import users_backend
    from bncli.live.users_code import users_code

    if not isinstance(value, type) and isinstance(value, Backend):
        return value
    return users_backend(value, users_code, name)
