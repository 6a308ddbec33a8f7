"""BN908: which layers and ranks differ, and how far."""

from __future__ import annotations

from bncli.model.ranks import RankDifference
from bncli.rulebook.ranks import rank_findings


def test_a_layer_has_one_finding():
    found = rank_findings([
        RankDifference("bn1", "running_mean", (1, 3), "values", 0.25),
        RankDifference("bn2", "running_var", (2,), "values", None),
        RankDifference("bn1", "running_var", (1, 3), "values", 1.5),
    ])  # fmt: skip
    assert [each.subject for each in found] == ["bn1", "bn2"]
    assert [each.message for each in found] == [
        (
            "ranks 1 and 3 have other values in running_mean and running_var than rank 0, up to "
            "1.5 apart"
        ),
        "rank 2 has other values in running_var than rank 0",
    ]
    both = ["running_mean", "running_var"]
    assert found[0].evidence == {
        "tensors": both, "ranks": [1, 3], "differs_in": [["values", both, [1, 3]]],
        "max_abs_diff": 1.5,
    }  # fmt: skip


def test_what_differs_otherwise_or_on_other_ranks_has_its_own_clause():
    (found,) = rank_findings([
        RankDifference("", "w", (1,), "dtype", 0.0),
        RankDifference("", "v", (1,), "values", 0.5),
        RankDifference("", "u", (2,), "values", 2.0),
        RankDifference("", "t", (1,), "dtype", None),
        RankDifference("", "s", (1, 2), "missing", None),
        RankDifference("", "r", (2,), "added", None),
        RankDifference("", "q", (1,), "shape", None),
    ])  # fmt: skip
    assert found.message.split("; ") == [
        "rank 1 has another dtype in w and t than rank 0",
        "rank 1 has other values in v than rank 0, up to 0.5 apart",
        "rank 2 has other values in u than rank 0, up to 2 apart",
        "ranks 1 and 2 have no s, which rank 0 has",
        "rank 2 has r, which rank 0 does not have",
        "rank 1 has another shape in q than rank 0",
    ]
    assert found.evidence["tensors"] == [*"wvutsrq"]
    assert found.evidence["ranks"] == [1, 2]
    assert found.evidence["differs_in"][:2] == [["dtype", ["w", "t"], [1]], ["values", ["v"], [1]]]


def test_many_ranks_are_counted():
    (found,) = rank_findings([RankDifference("", "w", tuple(range(1, 20)), "dtype", None)])
    assert found.message.startswith("ranks 1, 2, 3, 4, 5, 6, 7, 8 and 11 more have another dtype")
