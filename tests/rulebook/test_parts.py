"""BN907: which parts of a whole are missing, and how much of it they are."""

from bncli.files.reading import MissingParts
from bncli.rulebook.parts import missing_parts


def test_missing_parts_are_named_with_their_share():
    found = missing_parts(
        MissingParts("p0.npz", (1, 3), 4, 0.5, again="make shard 1/4 with: bncli x")
    )
    assert found.message == "shards 1/4 and 3/4 are missing, with about 50% of the inputs' bytes"
    assert found.hint == "First make shard 1/4 with `bncli x`, then merge all parts again."
    assert found.evidence == {"missing_shards": [1, 3], "shards": 4, "missing_share": 0.5}


def test_many_are_counted():
    found = missing_parts(MissingParts("p0.npz", tuple(range(30)), 0, 0.1))
    assert "18, 19 and 10 more are missing" in found.message
