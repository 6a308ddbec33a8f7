"""What several of these tests begin with."""

from __future__ import annotations

import pytest


@pytest.fixture
def rows(run):
    """Run with JSON, expect exit code 0, and give a table's rows; norms by name."""

    def rows(*argv, table="norms", code=0):
        result = run("compare-norms", *argv, "-f", "json")
        assert (result.code, result.stderr) == (code, "")
        found = result.report["tables"][table]
        return {row["norm"]: row for row in found} if table == "norms" else found

    return rows
