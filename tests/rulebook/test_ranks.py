"""BN908: which layers and ranks differ, and how far."""

from __future__ import annotations

from bncli.model.ranks import RankDifference
from bncli.rulebook.ranks import rank_findings


def test_a_layer_has_one_finding():
    found = rank_findings([
        RankDifference("bn1", "running_mean", (1, 3), "values", 0.25),
        RankDifference("bn2", "running_var", (2,), "values", None),
        RankDifference("bn1", "running_var", (3,), "values", 1.5),
    ])  # fmt: skip
    assert [each.subject for each in found] == ["bn1", "bn2"]
    assert [each.message for each in found] == [
        (
            "ranks 1 and 3 have other values in running_mean and running_var than rank 0, up to "
            "1.5 apart"
        ),
        "rank 2 has other values in running_var than rank 0",
    ]
    assert found[0].evidence == {
        "tensors": ["running_mean", "running_var"], "ranks": [1, 3], "differs_in": "values",
        "max_abs_diff": 1.5,
    }  # fmt: skip


def test_other_differences_are_named():
    (found,) = rank_findings([RankDifference("fc", "weight", (1,), "shape", None)])
    assert found.message == "rank 1 has another shape in weight than rank 0"
    (found,) = rank_findings([RankDifference("fc", "bias", (1,), "missing", None)])
    assert "rank 1 has no such tensor, or one that rank 0 does not have, in bias" in found.message


def test_many_ranks_are_counted():
    (found,) = rank_findings([RankDifference("", "w", tuple(range(1, 20)), "dtype", None)])
    assert found.message.startswith("ranks 1, 2, 3, 4, 5, 6, 7, 8 and 11 more have another dtype")
