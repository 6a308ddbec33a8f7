"""bncli verifies and inspects Batch Normalization: statistics, steps, buffers, checkpoints.

The names below are the public Python API; each is imported when it is first used, so that
`import bncli` costs nothing.

The rooms, floor by floor; each imports only from the floors below its own:

    12  cli            mounts the commands, delivers their reports, catches, exits
        __main__       the process: signals, and the exit code
        api            the commands as functions of Python, and their reports
        testing        a judge for implementations of BatchNorm, for their own tests
    11  commands       one file or package each: from flags to a `Report`
    10  sections       what several commands compute alike and put into a report
     9  arguments      what several commands take from the command line
     8  verify         a pass beside another implementation's: tolerances, meters; identify, trace
        renderers      a `Report` as text, one file a format
        live           a model, run with its BatchNorm layers watched: capture, trials
        changes        what happened to layers between checkpoints
     7  backends       other implementations, run on the same input
        gate           which findings count: settings, --select, --ignore, the baseline
     6  rulebook       layers, batches and pairs of them become `Finding`s, one entry a rule
        loaders        a file becomes its tensors, read when needed; no code in it is ever run
     5  state_dict     names and tensors become layers, as PyTorch and other frameworks name them
        running_stats  running statistics over many batches; the conventions of the frameworks
        norms          BatchNorm's relatives: LayerNorm, InstanceNorm, GroupNorm, RMSNorm
     4  moments        one exact pass over tensors of any size, pooled and merged: by NumPy, and
                       by NumKong where it is installed and faster
        batchnorm      the normalisation and its gradients
        pytorch_cpu    the roundings of PyTorch's kernels, repeated
     3  model          the values that flow
     2  files          bytes in and out, each file remembered; what is written is whole
        process        signals, streams, the progress bar
     1  report         `Report`, `Table`, `Chart`, `Finding`: what commands return
        pictures       what is drawn where people would rather look than read
        given          Python objects that stand in the place of paths
        errors         what keeps bncli from looking, and the exit codes
        dtypes         names, widths and conversions of dtypes
        light          what costs little at start: frozen dataclasses, NumPy when it is used
        paths          a path of this system, or the URL of a file elsewhere
        urls           the parts of a URL, and what may be shown of it

What flows:

    path - loaders -> TensorRef - moments -> ChannelStats - batchnorm -> Normalization
                                - state_dict -> BatchNormState - running_stats -> RunningStats
    two of a kind - verify -> Closeness;  any of them - rulebook -> Finding
    all of them - commands, sections -> Report - gate, renderers -> text
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "compute": "bncli.api.functions",
    "trace": "bncli.api.functions",
    "simulate_ema": "bncli.api.functions",
    "diff": "bncli.api.functions",
    "identify": "bncli.api.functions",
    "inspect_checkpoint": "bncli.api.functions",
    "compare_checkpoints": "bncli.api.functions",
    "capture": "bncli.api.recorded",
    "diagnose": "bncli.api.functions",
    "recalibrate": "bncli.api.functions",
    "compare_norms": "bncli.api.functions",
    "conventions": "bncli.api.functions",
    "rules": "bncli.api.functions",
    "schema": "bncli.api.functions",
    "channel_stats": "bncli.moments",
    "merge": "bncli.moments",
    "open_file": "bncli.loaders",
    "open_tensor": "bncli.loaders",
    "open_layer": "bncli.loaders",
    "main": "bncli.cli",
    "BncliError": "bncli.errors",
    "ExitCode": "bncli.errors",
}

__all__ = ["__version__", *_HOMES, "testing"]  # noqa: PLE0604  # every key of _HOMES is a string


def __getattr__(name: str) -> Any:
    """Import a public name from its home. Raises AttributeError for any other name."""
    if name not in __all__:
        raise AttributeError(f"module 'bncli' has no attribute {name!r}")
    from importlib import import_module  # here, so that a process can handle signals before it

    if name not in _HOMES:
        return import_module(f"bncli.{name}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
