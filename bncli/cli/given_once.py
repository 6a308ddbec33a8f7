"""A command that refuses a flag given twice with two values, and one that was removed."""

from __future__ import annotations

import re
from typing import Any

from typer import TyperException
from typer.core import TyperCommand, TyperOption

from bncli.errors import UsageError

FORMER = {
    ("diff", "--double-backward"): "leave it out; gradients are compared without it.",
}
"""What to type instead of a flag that was removed; kept for one release."""


SINGLE_DASH = re.compile(r"-[a-z][a-z-]{2,}")
"""A long flag that lacks one of its dashes, which Typer takes for short ones."""


class GivenOnce(TyperCommand):
    """A command whose flags have one value each: two that differ are refused, and former ones.

    Typer keeps the last one and says nothing, so that `--eval --training` would train. A flag that
    is given twice alike, and one that collects its values, are left alone.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer's; raises UsageError for flags that contradict each other or were removed."""
        words = list(args)  # Typer takes them out one by one
        try:
            if not ctx.resilient_parsing:
                self._refuse_contradictions(ctx, args)
            return super().parse_args(ctx, args)
        except TyperException as error:  # Typer knows nothing of a former flag
            flag = getattr(error, "option_name", None)
            if sentence := FORMER.get((str(self.name), str(flag))):
                raise UsageError(f"{flag} was removed: {sentence}") from error
            word = next((word for word in words if SINGLE_DASH.fullmatch(word)), None)
            if word and flag and len(flag) == 2 and flag[1] in word:
                error.option_name = f"-{word}"  # type: ignore[attr-defined]  # as it was meant
            error.ctx = ctx  # type: ignore[attr-defined]  # which the parser does not always say
            raise

    def _refuse_contradictions(self, ctx: Any, args: list[str]) -> None:
        """Parse `args` with every flag collecting its values, and look at those that have two."""
        if sum(word.startswith("-") for word in args) < 2:
            return
        single = [
            param
            for param in self.params
            if isinstance(param, TyperOption) and not param.multiple and not param.count
        ]
        for param in single:
            param.multiple = True
        try:
            parser = self.make_parser(ctx)
        finally:
            for param in single:
                param.multiple = False
        given, _, _ = parser.parse_args(args=list(args))
        for param in single:
            values = list(dict.fromkeys(given.get(str(param.name)) or ()))
            if len(values) < 2:
                continue
            flag = max(param.opts, key=len)
            if param.secondary_opts:
                raise UsageError(
                    f"{flag} and {param.secondary_opts[0]} contradict each other; leave one out."
                )
            raise UsageError(
                f"{flag} is given as {values[0]} and as {values[1]}; it takes one value."
            )
