"""What the tests of a running model share."""

from tests.live.code import code

__all__ = ["code"]
