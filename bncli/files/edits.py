"""A file with some of its bytes replaced, written as a new one, and held against the old one."""

from __future__ import annotations

from typing import NamedTuple


class Edit(NamedTuple):
    """Bytes that take the place of those from `offset` on; a file keeps its length."""

    offset: int
    data: bytes
