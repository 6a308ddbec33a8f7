"""A live model and its data on the command line: the panels Model and Data, and what they open."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

from bncli.arguments.completion import complete_data, complete_parts
from bncli.arguments.options import DeviceName, option
from bncli.dtypes import ComputeDtype
from bncli.errors import MissingBackendError, UsageError
from bncli.given import at_end, called_from_python, is_given
from bncli.light import dataclass
from bncli.loaders.names import quoted

if TYPE_CHECKING:
    from bncli.live.data_source import Data
    from bncli.live.session import Session
    from bncli.report import Value

MODEL, DATA = "Model", "Data"

Checkpoint = Annotated[
    str | None,
    option(
        "Load the weights from this file, through any wrapper of their names; ::PART chooses one "
        "of several dictionaries, such as state_dict_ema.",
        MODEL,
        metavar="FILE[::PART]",
        default="as built",
        complete=complete_parts,
    ),
]
AllowMissingKeys = Annotated[
    bool,
    option(
        "Keep the values of the built model for tensors that the checkpoint lacks.",
        MODEL,
        "--allow-missing-keys",
    ),
]
Arg = Annotated[
    list[str] | None,
    option(
        "An argument of the class or function that MODEL names, such as num_classes=21; a VALUE "
        "that "
        "is not a Python literal is text; may be repeated.",
        MODEL,
        metavar="NAME=VALUE",
        default=False,
    ),
]
Frozen = Annotated[
    list[str] | None,
    option(
        "Layers that keep their statistics in training too, such as 'backbone.*'; may be repeated.",
        MODEL,
        metavar="GLOB",
        default="those that MODEL freezes",
    ),
]
Device = Annotated[
    DeviceName | None, option("Where the model runs.", MODEL, default=DeviceName.CPU.value)
]
Seed = Annotated[
    int | None,
    option(
        "Seed of the weights of a model without a checkpoint, of shuffled data and of dropout.",
        MODEL,
        metavar="N",
        default="0",
        least=0,
    ),
]
DataSpecs = Annotated[
    list[str] | None,
    option(
        "The input: a file with a tensor (.npy, .npz, .pt, .safetensors), which is one batch; a "
        "quoted pattern of such files; or file.py:name or package.module:name for batches such as "
        "a DataLoader's; may be repeated.",
        DATA,
        metavar="FILE|CODE",
        default=False,
        complete=complete_data,
    ),
]
InputKey = Annotated[
    list[str] | None,
    option(
        "The input's name in a file or a batch that is a dictionary, or its number in a tuple; may "
        "be repeated: names are keyword arguments of the model, numbers positional ones.",
        DATA,
        metavar="NAME",
        default="the only tensor, the first of a tuple, or all as keyword arguments",
    ),
]
BatchSize = Annotated[
    int | None,
    option(
        "Cut each file into batches of N samples; the last may be smaller.",
        DATA,
        metavar="N",
        default="each file one batch",
        least=1,
    ),
]
Batches = Annotated[
    int | None,
    option("Take only the first N batches.", DATA, metavar="N", default="all", least=1),
]
InputDtype = Annotated[
    ComputeDtype | None,
    option("Convert the input to this dtype first.", DATA, default="the input's"),
]


@dataclass(frozen=True, slots=True)
class ModelFlags:
    """How a model is built and what runs through it; None where a flag was not given."""

    checkpoint: Checkpoint = None
    allow_missing_keys: AllowMissingKeys = False
    arg: Arg = None
    frozen: Frozen = None
    device: Device = None
    seed: Seed = None
    data: DataSpecs = None
    input_key: InputKey = None
    batch_size: BatchSize = None
    batches: Batches = None
    dtype: InputDtype = None

    @property
    def keys(self) -> str | tuple[str, ...] | None:
        """The input's name, or several names of keyword arguments."""
        names = tuple(dict.fromkeys(self.input_key or ()))
        return names if len(names) > 1 else next(iter(names), None)

    def refuse_any(self, what: str) -> None:
        """Raise UsageError where one was given that does not apply to `what`."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and value is not False and value != []:
                flag = field.name.replace("_", "-")
                raise UsageError(f"--{flag} does not apply to {what}; leave it out.")

    @property
    def facts(self) -> dict[str, Value | Mapping[str, Value]]:
        """What was given of what changes the numbers, as a script reads it."""
        given: dict[str, Value | Mapping[str, Value]] = {
            "data": list(self.data or ()),
            "input_key": list(self.keys) if isinstance(self.keys, tuple) else self.keys,
            "batch_size": self.batch_size,
            "batches": self.batches,
            "dtype": self.dtype.value if self.dtype else None,
            "device": (self.device or DeviceName.CPU).value,
            "seed": self.seed or 0,
            "arguments": list(self.arg or ()),
            "frozen": list(self.frozen or ()),
        }
        return {name: value for name, value in given.items() if value is not None and value != []}


def open_model_data(
    flags: ModelFlags, shard: tuple[int, int] = (0, 1), *, of_ranks: bool = False
) -> Data:
    """The batches that a command line names, of which `shard` (k, n) takes every n-th.

    Code may give each shard `of_ranks` its own. Raises UsageError, FileError, TensorError and
    ModelError, and EmptyShardError where it is known already that the shard has none of them.
    """
    from bncli.live.data_source import open_data
    from bncli.live.random_streams import RandomStreams

    if not flags.data:
        what = "name files of tensors, or a loader as file.py:name"
        if called_from_python():
            what = "give batches, a DataLoader, a function that gives batches, or paths"
        raise UsageError(f"--data is missing: {what}.")
    seed = flags.seed or 0
    with RandomStreams(seed).drawing():  # of modules that make their data as they are imported
        data = open_data(
            flags.data,
            flags.keys,
            flags.batch_size,
            flags.batches,
            flags.dtype.value if flags.dtype else None,
            seed=seed,
            shard=shard,
        )
        if not (of_ranks and data.has_code):
            data.check_shard()
    return data


def open_session(
    flags: ModelFlags, model: str, shard: tuple[int, int] = (0, 1), *, of_ranks: bool = False
) -> Session:
    """The model and the data that a command line names, ready to run; `source` says which.

    `shard` and `of_ranks` are as in `open_model_data`. Raises UsageError, MissingBackendError,
    FileError, TensorError and ModelError, each a sentence with what to do, and EmptyShardError.
    """
    from bncli.backends.torch.tensors import library
    from bncli.live.keeping import random_numbers_kept
    from bncli.live.model_source import load_model
    from bncli.live.random_streams import RandomStreams
    from bncli.live.session import Session
    from bncli.live.surroundings import surroundings
    from bncli.live.users_code import users_code
    from bncli.live.weights import load_weights

    torch = library()
    if is_given(model):
        at_end(random_numbers_kept())
    device = (flags.device or DeviceName.CPU).value
    seed = flags.seed or 0
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingBackendError(
            "--device cuda: PyTorch sees no CUDA device here; leave --device out, or run where "
            "there is one."
        )
    arguments = parse_arguments(flags.arg or ())
    if flags.checkpoint is None and flags.allow_missing_keys:
        raise UsageError("--allow-missing-keys is for --checkpoint, which is not given.")
    data = open_model_data(flags, shard, of_ranks=of_ranks)
    with RandomStreams(seed).drawing():
        built = load_model(model, arguments)
    source: dict[str, Value | Mapping[str, Value]] = {
        "model": model,
        "class": _class_of(built),
        **flags.facts,
        **surroundings(),
    }
    stored = ""
    if flags.checkpoint is not None:
        loaded = load_weights(built, flags.checkpoint, allow_missing=flags.allow_missing_keys)
        stored = str(loaded.pop("fingerprint"))
        source["checkpoint"] = loaded
    with users_code(f"moving the model to {device}"):
        built = built.to(device)
    return Session(
        built,
        data,
        frozen=flags.frozen or (),
        seed=seed,
        device=device,
        source=source,
        checkpoint=stored,
    )


def _class_of(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


_CONSTANTS = {"true": "True", "false": "False", "none": "None", "null": "None"}
"""What other languages write, in Python."""


def parse_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` as keyword arguments: a value is a Python literal, or else the text itself.

    Raises UsageError for what is not written so, for a name that is given twice, and for `true`,
    `false` and `null`, which as texts would all be true.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise UsageError(f"--arg {quoted(text)}: write NAME=VALUE, such as num_classes=21.")
        if name in found:
            raise UsageError(f"--arg {name} is given twice; leave one out.")
        python = _CONSTANTS.get(value.strip().lower())
        if python is not None and python != value.strip():
            raise UsageError(
                f"--arg {quoted(text)}: write {name}={python}, or {name}='\"{value.strip()}\"' "
                "for the text."
            )
        found[name] = _literal(value)
    return found


def _literal(text: str) -> Any:
    """A Python literal, or the text where it is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an escape in a text that Python will not know one day
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
