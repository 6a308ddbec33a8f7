"""What does not go together with --distributed."""

from __future__ import annotations

import pytest

from bncli.arguments.distributed import check_distributed
from bncli.errors import UsageError


def test_files_go_together_with_it():
    check_distributed(["x.npy", None])


def test_a_shard_does_not():
    with pytest.raises(UsageError, match=r"^--shard 1/4: with --distributed each rank takes its"):
        check_distributed(["x.npy"], "1/4")


def test_standard_input_does_not():
    with pytest.raises(UsageError, match="standard input can be read by one process only"):
        check_distributed(["x.npy", "-"])
