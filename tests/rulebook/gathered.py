"""What is planted for the rules about many files: each makes its finding, and no other."""

from __future__ import annotations

from bncli.model.many import Jump, Kind, Made, Many, Origin, Ranks, Still
from bncli.rulebook.many import many_findings

FILES = ("a.pt", "b.pt", "c.pt")

MEAN = Origin("parameters", Made.MEAN, "the mean of these 3 files", weights=(1 / 3,) * 3)
ONE = Origin("statistics", Made.FILE, "a.pt's, bit for bit", exact=True, weights=(1.0, 0.0, 0.0))
BACK = Jump("b.pt", ("bn1", "bn2"), "bn1", 12.0, 6.0, 1000.0, back=True)
MOVED = Still(("bn1",), "a.pt", weights_moved=True)
RANKS = Ranks(("bn1", "bn2"), "bn2", "b.pt", 0.3, 1.2)


def of_target(*origins):
    """The findings of a target with these rows."""
    return many_findings(Many(Kind.TARGET, FILES, 2, "avg.pt", origins=origins))


def of_files(kind=Kind.SERIES, **more):
    """The findings of files without a target."""
    return many_findings(Many(kind, FILES, 2, **more))


PLANTED = {
    "BN617": lambda: of_target(MEAN, ONE),
    "BN618": lambda: of_files(jumps=(BACK,)),
    "BN619": lambda: of_files(Kind.RANKS, ranks=RANKS),
    "BN622": lambda: of_files(stills=(MOVED,)),
}
