"""`bncli schema`: the JSON Schema of what `--format json` prints."""

from __future__ import annotations


def schema() -> str:
    """Print the JSON Schema of every command's JSON report."""
    from importlib.resources import files

    return files("bncli").joinpath("report.schema.json").read_text(encoding="utf-8")
