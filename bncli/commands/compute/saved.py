"""What `bncli compute` makes beside its report: the normalised tensor, and a statistics file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from bncli.errors import UsageError
from bncli.light import dataclass, np
from bncli.model.part import Part

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.arguments.flags import InputFlags, LayerFlags
    from bncli.arguments.input import Input
    from bncli.arguments.layer import Layer
    from bncli.batchnorm import Normalization
    from bncli.commands.compute.stored import Stored
    from bncli.model import BatchNormState, TensorRef
    from bncli.model.capture import Capture
    from bncli.moments.one_batch import BatchPart
    from bncli.process.progress import Advance
    from bncli.verify.batch_norm_pass import BatchNormPass

PIECE = 1 << 22
"""Values of a tensor that are read at a time; never less than a sample."""


@dataclass(frozen=True, slots=True)
class Saving:
    """The files to write, None where a flag was not given."""

    output: str | None
    stats: str | None
    per_batch: bool

    def check(self, given: Input) -> None:
        """Raise UsageError or FileError, before any work is done, where they cannot be written."""
        if self.output is not None:
            _check_output(self.output, given)
        if self.stats is not None:
            from bncli.loaders.statistics import check_statistics_path

            check_statistics_path(self.stats)
        elif self.per_batch:
            raise UsageError("--per-batch is for a statistics file: add --save-stats FILE.npz.")

    def write(
        self,
        given: Input,
        run: Layer,
        flags: tuple[InputFlags, LayerFlags],
        done: BatchNormPass,
        stored: Stored | None,
    ) -> tuple[dict[str, str], list[str]]:
        """Write the files; gives the facts and the remarks on them.

        `flags` say how the input is read and the layer. `stored` is what was read, if that were
        statistics, or was summed already.
        """
        facts, remarks = {}, []
        if self.output is not None:
            _save(self.output, given, done.norm)
            facts["saved_output"] = self.output
            remarks.append(f"output saved to {self.output}")
        if self.stats is not None:
            from bncli.loaders.statistics import write_statistics

            facts["saved_stats"] = self.stats
            if stored is not None and stored.kept:
                return facts, remarks
            if stored is None:
                from bncli.commands.compute.sums_first import record_of

                part = record_of(given, *flags, self)
                capture = capture_of(given, run, flags[1], part, per_batch=self.per_batch)
            else:
                capture = stored.capture
            write_statistics(self.stats, capture, new=stored is not None and stored.new)
            remarks.append(f"statistics saved to {self.stats}")
        return facts, remarks


def _check_output(path: str, given: Input) -> None:
    """Raise UsageError where the output tensor cannot be saved to `path`."""
    from bncli.files.save import check_writable, refuse_overwriting, tensor_suffix

    tensor_suffix(path, given.dtype, "--save-output")
    check_writable(path)
    refuse_overwriting(path, "--save-output")
    if len(given.tensors) > 1:
        raise UsageError(f"--save-output {path}: takes one INPUT; normalise them one by one.")


def _save(path: str, given: Input, norm: Normalization) -> None:
    """Write the normalised tensor, block by block, in the input's dtype."""
    from pathlib import Path

    from bncli.batchnorm import BlockNormalizer, blocks
    from bncli.dtypes import encode
    from bncli.files.save import save_tensor
    from bncli.process.progress import progress

    tensor = given.tensors[0]
    normalizer = BlockNormalizer(norm, tensor.ndim, given.channel_axis)

    def pieces() -> Iterator[NDArray[Any]]:
        with progress("output", tensor.numel * given.itemsize) as advance:
            for block in blocks(tensor.shape):
                values = given.values(tensor, block)
                yield encode(normalizer.output(values, block), given.dtype)
                advance(values.nbytes)

    save_tensor(Path(path), tensor.shape, given.dtype, pieces())


# ---------------------------------------------------------------------------- the statistics


def capture_of(
    given: Input, run: Layer, flags: LayerFlags, part: Part, *, per_batch: bool
) -> Capture:
    """The input as what one layer saw in training, each tensor a batch.

    The layer is called as --state calls it, else as the tensors are in their files, else "input".
    `part` is its record.
    """
    from bncli import __version__
    from bncli.model.capture import Capture, Propagation, WatchedLayer
    from bncli.moments.batches import BatchSums
    from bncli.process.progress import progress

    state = _state(given, run, flags)
    names = {tensor.name for tensor in given.tensors}
    name = state.name if state is not None else next(iter(names)) if len(names) == 1 else ""
    sums = BatchSums(given.num_features, per_batch=per_batch)
    total = sum(tensor.numel for tensor in given.tensors)
    with progress("sums to save", total * given.itemsize) as advance:
        for tensor in given.tensors:
            sums.add_part(_batch(given, tensor, advance))
    seen = {Propagation.TRAINING: sums.result()}
    order = 0 if state is None else 1
    layer = WatchedLayer(name or "input", order, given.num_features, state, seen=seen)
    kept = {(layer.name, Propagation.TRAINING): sums.batches()} if per_batch else {}
    labels = [tensor.label for tensor in given.tensors]
    source = {
        "command": "compute",
        **({"data": labels} if part.n == 1 else {}),  # which a part says anyway
        "dtype": given.dtype,
        "kind": given.kind,
        "bncli": __version__,
        "numpy": np.__version__,
    }
    return Capture((layer,), source=source, per_batch=kept, part=part)


def _state(given: Input, run: Layer, flags: LayerFlags) -> BatchNormState | None:
    """The layer's state as far as it was given; None where nothing of it was.

    eps and momentum are in it where they were given or are the file's.
    """
    from bncli.loaders import open_layer
    from bncli.model import BatchNormModule, BatchNormState

    affine = flags.weight is not None or flags.bias is not None
    if flags.state is None and not affine and flags.running_mean is None:
        return None
    stored = BatchNormState("") if flags.state is None else open_layer(flags.state)
    eps_known = run.sources["eps_source"] != "default"
    momentum_known = run.sources["momentum_source"] != "default"
    settings = run.settings
    module = BatchNormModule(
        given.kind if stored.module is None else stored.module.class_name,
        settings.eps if eps_known else None,
        settings.momentum if momentum_known else None,
        settings.affine,
        settings.track_running_stats,
        settings.training,
        has_momentum=momentum_known,
    )
    vectors: dict[str, NDArray[Any] | None] = {"weight": run.weight, "bias": run.bias}
    if not affine and stored.weight is None and stored.bias is None:
        vectors = dict.fromkeys(vectors)
    running = run.running if flags.state or flags.running_mean is not None else None
    vectors["running_mean"] = None if running is None else running.running_mean
    vectors["running_var"] = None if running is None else running.running_var
    known: dict[str, Any] = {
        name: None if values is None else values.astype(run.parameter_dtype)
        for name, values in vectors.items()
    }
    dtype = stored.dtype or run.parameter_dtype
    return replace(stored, **known, dtype=dtype, module=module)


def _batch(given: Input, tensor: TensorRef, advance: Advance) -> BatchPart:
    """The sums of one tensor, read sample by sample where it is large, in several threads."""
    from bncli.moments.batches import batch_part, joined
    from bncli.moments.team import default_threads, in_order

    axis = given.sample_axis
    samples = 1 if axis is None else tensor.shape[axis]
    step = max(1, PIECE * samples // tensor.numel)
    number = -(-samples // step)
    threads = min(default_threads(), number)

    def part(read: Callable[[tuple[slice, ...]], NDArray[Any]], which: int) -> BatchPart:
        rows = slice(which * step, min((which + 1) * step, samples))
        block = () if axis is None else (slice(None),) * axis + (rows,)
        x = given.decoded(read(block), tensor.dtype)
        if axis is None:
            x = np.moveaxis(x, given.channel_axis, 0)[np.newaxis]
        else:
            x = np.moveaxis(x, (axis, given.channel_axis), (0, 1))
        return batch_part(x, threads=1 if threads > 1 else None)

    pieces = []
    with ExitStack() as stack:
        own = 1 if callable(tensor.storage) else threads  # what is in memory is there once
        readers = [tensor.stored_reader(stack) for _ in range(own)]
        workers = [partial(part, readers[k % own]) for k in range(threads)]
        with closing(in_order(workers, 0, number)) as parts:
            for each in parts:
                pieces.append(each)
                advance(each.count * given.num_features * given.itemsize)
    return joined(pieces)
