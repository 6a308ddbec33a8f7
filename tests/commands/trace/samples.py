"""What several of these tests have in common."""

from __future__ import annotations

import numpy as np

TUTORIAL = "examples/tutorial/x.npy"


def rows(result, table: str, **chosen) -> list[dict]:
    return [
        row
        for row in result.report["tables"][table]
        if all(row[key] == value for key, value in chosen.items())
    ]


def steps(result, channel: int = 0, direction: str = "forward") -> dict[str, dict]:
    found = rows(result, "steps", channel=channel, **{"pass": direction})
    assert [row["step"] for row in found] == [*range(1, len(found) + 1)]
    return {row["quantity"]: row for row in found}


def values(result, channel: int = 0, direction: str = "forward") -> dict:
    return {name: row["value"] for name, row in steps(result, channel, direction).items()}


def column(result, key: str, **chosen) -> np.ndarray:
    return np.array([row[key] for row in rows(result, "elements", **chosen)], np.float64)
