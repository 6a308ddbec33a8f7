"""What a renderer is: a function from a `Report` to text that knows no command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bncli.light import dataclass
from bncli.report import FailOn

if TYPE_CHECKING:
    from bncli.errors import ExitCode
    from bncli.report import Report


@dataclass(frozen=True, slots=True)
class RenderContext:
    """Where the text goes: `width` in columns, or None where nothing may be cut or wrapped.

    `verbose` asks for all that the report has, where people read it. `color` allows escape
    sequences. `exit_code` is the one the process will end with, and `fail_on` the least severity
    that fails.
    """

    exit_code: ExitCode
    width: int | None = None
    verbose: bool = False
    color: bool = False
    fail_on: FailOn = FailOn.ERROR


class Renderer(Protocol):
    """One output format."""

    def __call__(self, report: Report, context: RenderContext) -> str:
        """The whole report as text that ends in a line break."""
