"""What several of these tests have in common."""

from __future__ import annotations


def rows(result, key):
    return {next(iter(row.values())): row for row in result.report["tables"][key]}
