"""What many files with the same BatchNorm layers are to each other."""

from __future__ import annotations

from enum import Enum

from bncli.light import dataclass
from bncli.model.changes import State
from bncli.report import Certainty


class Kind(str, Enum):
    """What the files are taken for.

    TARGET: one file that is compared with all others. SERIES: files whose counters grow, or,
    without counters, whose weights move on in the order given. RANKS:
    files with equal counters, or none, and equal parameters. CLIENTS: equal
    counters and other parameters, or weights that are about equally far from each other. APART:
    other counters, or none, or networks that were trained apart.
    """

    TARGET = "target"
    SERIES = "series"
    RANKS = "ranks"
    CLIENTS = "clients"
    APART = "apart"


class Counted(str, Enum):
    """What the counters of several files are: GROWING in some order, EQUAL, DIFFERENT or NONE."""

    GROWING = "growing"
    EQUAL = "equal"
    DIFFERENT = "different"
    NONE = "none"


class Made(str, Enum):
    """How tensors of a target come from those of the files; the value is what scripts read.

    SAME says that all files and the target agree, FILE that the target has one file's, SUBSET that
    it has the mean of some files. POOLED are the statistics of all files' data together: the
    variance includes that between the means. INITIAL is an average that still holds a share of the
    initial 0 and 1, RESET are 0 and 1 themselves. SUM, LARGEST and SMALLEST are for counters, and
    SUM for tensors that were not divided. UNTOLD says that the files differ too little, or too few
    values do, to tell.
    """

    SAME = "same"
    FILE = "one-file"
    MEAN = "mean"
    SUBSET = "mean-of-some"
    POOLED = "pooled"
    WEIGHTED = "weighted-sum"
    INITIAL = "initial-share"
    RESET = "reset"
    SUM = "sum"
    LARGEST = "largest"
    SMALLEST = "smallest"
    MISSING = "missing"
    UNTOLD = "untold"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where one group of the target's tensors comes from.

    `group` is "parameters", "statistics" or "counters"; where its two halves differ, there is a row
    for each: "weight and bias", "layers before", "running_mean", "running_var". `what` says it in a
    few words. `exact` is whether all bits that were read agree. `weights` has one value a file, ()
    where there are none to tell, and `unique` says whether no others would do as well. `initial` is
    the share of the initial 0 and 1. `residual` is the root of the mean square of what is left, as
    a share of how far the files are from their mean; `roundings` is the largest difference of a
    value, in roundings of its dtype. `values` of the `total` values of the group were read. `off`
    names the layers in which this does not hold, for NONE those in which the nearest does not.
    """

    group: str
    made: Made
    what: str
    certainty: Certainty = Certainty.CERTAIN
    exact: bool = False
    weights: tuple[float, ...] = ()
    unique: bool = True
    initial: float | None = None
    residual: float | None = None
    roundings: float | None = None
    values: int = 0
    total: int = 0
    off: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerMove:
    """How far one layer is from itself in the file before, or in the first.

    `z` is the median shift of its means in standard deviations, `z_max` the largest of a channel,
    `var_ratio` the median ratio of its variances, `var_ratio_worst` the one furthest from 1.
    """

    name: str
    z: float
    z_max: float
    var_ratio: float
    var_ratio_worst: float


@dataclass(frozen=True, slots=True)
class FileRow:
    """One file among several.

    In a series it is compared with the file before it, else with the first; the first has None for
    all that is compared. `counter` is the median of the layers' counters, and `batches` what it
    grew by. `z` is the median over the layers of their median shift of a mean, in standard
    deviations, `z_max` the largest of a channel. `var_ratio` is the median ratio of the variances
    in the same way, `var_ratio_worst` the one furthest from 1. `worst` is the layer that moved
    furthest. `what` is what is special about the file, "" for nothing. `moves` has the layers that
    could be compared.
    """

    path: str
    counter: float | None = None
    batches: float | None = None
    z: float | None = None
    z_max: float | None = None
    var_ratio: float | None = None
    var_ratio_worst: float | None = None
    worst: str = ""
    what: str = ""
    moves: tuple[LayerMove, ...] = ()


@dataclass(frozen=True, slots=True)
class Jump:
    """A file of a series in which statistics of some layers move far more than they usually do.

    Of the first file, the move is that to it from the next one.
    `back` says whether the file after it has left the jump behind; None for the last file, where
    that cannot be seen. `times` is the move over the layer's usual one, in the layer `worst`,
    infinite where the layer does not move else; `z` and `var_ratio` are the median shift and
    variance ratio there.
    """

    path: str
    layers: tuple[str, ...]
    worst: str
    times: float
    z: float
    var_ratio: float
    back: bool | None


@dataclass(frozen=True, slots=True)
class Still:
    """Layers of a series whose statistics stay bit for bit as they are in the file `since`.

    `weights_moved` says whether their weight or bias moves meanwhile, or, in layers without them,
    the weights in front of them; None where there are none to compare.
    """

    layers: tuple[str, ...]
    since: str
    weights_moved: bool | None


@dataclass(frozen=True, slots=True)
class Ranks:
    """Files with equal counters whose statistics differ.

    `worst` is the layer, and `path` the file, whose statistics lie furthest from those of the other
    files: `z` and `var_ratio` are the largest shift of a mean in standard deviations and the ratio
    of the variances furthest from 1. `factor` is the ratio of the variances of `path` to those of
    the first other file, if it is the same in all channels of a layer while the means are equal,
    and `counts` the smallest numbers of values (n, m) with n/(n-1) over m/(m-1) equal to it, None
    where no small ones are.
    """

    layers: tuple[str, ...]
    worst: str
    path: str
    z: float
    var_ratio: float
    factor: float | None = None
    counts: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A file in which some layers hold what training does not give, as RESET, EMPTY or IMPOSSIBLE.

    `what` is a phrase for it, and `tensors` those with impossible values.
    """

    path: str
    state: State
    what: str
    layers: tuple[str, ...]
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stranger:
    """A file whose weights are not correlated with those of the others, and the layers it has."""

    path: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Many:
    """Many files, by the layers that all of them have.

    `paths` are in the order in which they are judged: that of the counters in a series, for which
    `reordered` says whether it differs from the order given. `layers` counts the BatchNorm layers
    that all files have, `lacking` names those of the first that some file lacks, by its path.
    `origins` are a target's rows, `rows` the others' rows, one a file, and `new` the files in which
    every layer is one before any training. `drift` is the median move from file to file in the
    first and in the last third of the layers. `counted` is what their counters are,
    and `wanders` that the weights do not move on from file to file in a series. Where most are of
    one network, the others are `strangers`, and not among `paths`; `runs` are those of several
    files where none has most of them.
    """

    kind: Kind
    paths: tuple[str, ...]
    layers: int
    target: str = ""
    lacking: tuple[tuple[str, tuple[str, ...]], ...] = ()
    reordered: bool = False
    origins: tuple[Origin, ...] = ()
    rows: tuple[FileRow, ...] = ()
    jumps: tuple[Jump, ...] = ()
    stills: tuple[Still, ...] = ()
    ranks: Ranks | None = None
    spoilt: tuple[Spoilt, ...] = ()
    new: tuple[str, ...] = ()
    drift: tuple[float, float] | None = None
    sure: Certainty = Certainty.CERTAIN
    related: bool | None = None
    counted: Counted = Counted.EQUAL
    wanders: bool = False
    strangers: tuple[Stranger, ...] = ()
    runs: tuple[tuple[str, ...], ...] = ()

    @property
    def unmatched(self) -> int:
        """How many layers of the first file some other file lacks."""
        return len({name for _, names in self.lacking for name in names})
