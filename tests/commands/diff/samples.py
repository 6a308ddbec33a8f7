"""What several of these tests have in common."""

from __future__ import annotations

DIFFERENCE_KEYS = {
    "quantity", "max_abs_diff", "max_rel_diff", "index", "mismatched", "total", "rtol", "atol",
    "passed",
}  # fmt: skip
