"""What a model's layers take in while the user's own code runs it, such as a training loop.

Hooks take every call in and change nothing: gradients, optimisers, modes and random numbers are as
without them. Copies of the model that are made meanwhile, and files that it is saved to as a whole,
have no hooks. What torch.compile made runs as if it had not been compiled, as compiled code leaves
hooks out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import field
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from bncli.errors import BncliError, ModelError, UsageError
from bncli.light import dataclass
from bncli.live.batch import Batch, inputs_of, model_input
from bncli.live.layers import LiveLayer, active_dropout, find_layers, in_training_now
from bncli.live.watching import EAGER, Hook, KernelFinder, add_input, watched
from bncli.model.capture import Capture, Propagation, WatchedLayer

if TYPE_CHECKING:
    from types import TracebackType

    from torch import Tensor, nn
    from typing_extensions import Self

    from bncli.moments.batches import BatchSums

NO_GAP = "each batch ran in one mode alone, as the model was called"
"""Why a recording has no outputs to compare."""

NOTHING = "no BatchNorm layer ran inside the block; call the model there"


@dataclass(slots=True)
class _Seen:
    """What one layer took in, and how it stood."""

    layer: LiveLayer
    order: int
    sums: dict[Propagation, BatchSums] = field(default_factory=dict)
    calls: int = 0
    all_calls: int = 0
    in_training: bool = False
    moved_in_training: bool = False


@dataclass(slots=True)
class _Pass:
    """One forward pass of the model: its mode, and how often it has called each layer."""

    mode: Propagation
    calls: dict[str, int] = field(default_factory=dict)
    looking: ExitStack = field(default_factory=ExitStack)
    depth: int = 1


class Seen:
    """What the layers of a model saw: `capture` has it, and `save` keeps it in a file."""

    @property
    def capture(self) -> Capture:
        """What was seen so far."""
        raise NotImplementedError

    def save(self, path: Path | str) -> None:
        """Write what was seen to a statistics file, for `bncli diagnose`.

        Raises UsageError for another suffix than .npz and where no layer ran, FileError where the
        file cannot be written, and ModelError as `capture`.
        """
        from bncli.loaders.statistics import write_statistics

        capture = self.capture
        if not capture.norms:
            raise UsageError(f"stats.save {path}: {NOTHING}.")
        write_statistics(path, capture, "stats.save")


class Recording(Seen):
    """Takes in what the BatchNorm layers of `model` see while the block runs.

    Each pass belongs to training or to evaluation by the mode of the layers, whatever the rest of
    the model does; that of a frozen layer, or where the layers differ, is the pass's. `frozen` has
    patterns of layers that keep their statistics, beside those that the model itself freezes, and
    `per_batch` keeps every batch's mean and variance too. The block may be entered again, and goes
    on then.

    Raises UsageError for what is no model, and for a pattern that fits no layer, and
    MissingBackendError without PyTorch.
    """

    def __init__(
        self, model: nn.Module, *, frozen: Sequence[str] = (), per_batch: bool = False
    ) -> None:
        from bncli.backends.torch.tensors import library
        from bncli.live.model_source import NO_HOOKS

        torch = library()
        if not isinstance(model, torch.nn.Module):
            kind = type(model).__name__
            raise UsageError(
                f"bncli.capture takes a model (torch.nn.Module), not {kind}. With data=... it "
                "takes a path, a class or a function, too."
            )
        if isinstance(model, torch.jit.ScriptModule):
            raise ModelError(f"bncli.capture: {NO_HOOKS}.")
        if type(model).__name__ == "OptimizedModule":  # torch.compile's, whose names are longer
            model = model.get_submodule("_orig_mod")
        self._model = model
        self._per_batch = per_batch
        self._layers = find_layers(model, frozen, switching=False)
        self._dropping = active_dropout(model)
        self._lock = RLock()
        self._hooks: ExitStack | None = None
        self._pass: _Pass | None = None
        self._seen: dict[str, _Seen] = {}
        self._inputs: dict[int, dict[Propagation, BatchSums]] = {}
        self._kernels = KernelFinder()
        self._still: dict[str, None] = {}
        self._dropped: dict[str, None] = {}
        self._problem = ""
        self._begun: Mapping[str, str] | None = None
        self._ended: Mapping[str, str] = {}

    # ------------------------------------------------------------------ the block

    def __enter__(self) -> Self:
        """Begin to take in. Raises UsageError inside of its own block."""
        if self._hooks is not None:
            raise UsageError(
                "this capture's block is open already; for a second one call bncli.capture again."
            )
        if self._begun is None:
            self._begun = self._fingerprint()
        with ExitStack() as stack:
            model = self._model
            begin = model.register_forward_pre_hook(Hook(self._begin), with_kwargs=True)
            stack.callback(begin.remove)
            end = model.register_forward_hook(Hook(self._end), always_call=True)
            stack.callback(end.remove)
            stack.enter_context(watched(self._layers, self._take_in))
            stack.enter_context(EAGER)
            self._hooks = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; an exception of the block passes."""
        hooks, self._hooks = self._hooks, None
        if hooks is not None:
            hooks.close()
        if self._pass is not None:
            self._pass.looking.close()
            self._pass = None
        self._ended = self._fingerprint()

    def _fingerprint(self) -> Mapping[str, str]:
        """The sums of the model's tensors; none where it cannot be read as it is, as if sharded."""
        from bncli.live.weights import fingerprint

        with suppress(Exception):
            return fingerprint(self._model)
        return {}

    # ------------------------------------------------------------------ the hooks

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The model is called."""
        with self._lock:
            if self._pass is not None:
                self._pass.depth += 1  # the model calls itself
                return
            if self._hooks is None or _in_backward():
                return
            mode = self._mode_of_all()
            self._pass = _Pass(mode)
            if mode is Propagation.TRAINING:
                on = (name for name, each in self._dropping if each.training)
                self._dropped.update(dict.fromkeys(on))
            elif not module.training:
                self._still.update(dict.fromkeys(in_training_now(module)))
            batch = Batch(args, kwargs, None, 0, "")
            try:
                if not self._seen:
                    looking = self._kernels.looking(module, inputs_of(batch))
                    self._pass.looking.enter_context(looking)
                x = model_input(batch)
                if x is not None:
                    self._add(self._inputs.setdefault(x.shape[1], {}), mode, x)
            except Exception as error:  # noqa: BLE001  # nothing here may end the user's training
                self._problem = self._problem or f"the model's input: {_said(error)}"

    def _end(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG002
        """The model has run, or failed."""
        with self._lock:
            if self._pass is None:
                return
            self._pass.depth -= 1
            if self._pass.depth == 0:
                self._pass.looking.close()
                self._pass = None

    def _take_in(self, layer: LiveLayer, x: Tensor) -> None:
        """A layer is called."""
        with self._lock:
            if self._hooks is None or _in_backward():  # compiled inside; activations anew
                return
            try:
                self._add_call(layer, x)
            except Exception as error:  # noqa: BLE001  # as above
                self._problem = self._problem or f"{layer.name}: {_said(error)}"

    def _add_call(self, layer: LiveLayer, x: Tensor) -> None:
        name, training = layer.name, layer.module.training
        seen = self._seen.get(name)
        if seen is None:
            seen = self._seen[name] = _Seen(layer, len(self._seen) + 1)
        now = self._pass
        if now is None:  # a part of the model is called by itself
            mode = self._mode_of(layer)
            calls = 1
        else:
            mode = now.mode
            calls = now.calls[name] = now.calls.get(name, 0) + 1
            self._kernels.look(layer, x)
        seen.calls = max(seen.calls, calls)
        seen.all_calls += 1
        if training and mode is Propagation.TRAINING:
            seen.moved_in_training = True
        if training and mode is Propagation.EVAL and not layer.frozen:
            seen.in_training = True
        self._add(seen.sums, mode, x, per_sample=layer.per_sample)

    def _add(
        self,
        sums: dict[Propagation, BatchSums],
        mode: Propagation,
        x: Tensor,
        *,
        per_sample: bool = False,
    ) -> None:
        """Take a tensor in."""
        from bncli.moments.batches import BatchSums

        if mode not in sums:
            sums[mode] = BatchSums(x.shape[1], per_batch=self._per_batch, per_sample=per_sample)
        add_input(sums[mode], x)

    def _mode_of_all(self) -> Propagation:
        """That of the layers that are not frozen; the model's own where they differ."""
        living = [each.module.training for each in self._layers if not each.frozen]
        training = self._model.training if len(set(living)) != 1 else living[0]
        return Propagation.TRAINING if training else Propagation.EVAL

    def _mode_of(self, layer: LiveLayer) -> Propagation:
        if layer.frozen:
            return self._mode_of_all()
        return Propagation.TRAINING if layer.module.training else Propagation.EVAL

    # ------------------------------------------------------------------ what came of it

    @property
    def capture(self) -> Capture:
        """What was seen so far. Raises ModelError where a layer's input could not be taken in."""
        if self._problem:
            raise ModelError(f"bncli.capture: {self._problem}.")
        with self._lock:
            ended = self._fingerprint() if self._hooks is not None else self._ended
            self._kernels.renew()
            layers = [self._watched(seen) for seen in self._seen.values() if seen.sums]
            if layers and self._inputs:
                layers.insert(0, self._watched_input())
            begun = (self._begun or {}).get("weights")
            return Capture(
                tuple(layers),
                still_training=tuple(self._still),
                dropout=tuple(self._dropped),
                weights_moved=begun is not None and begun != ended.get("weights", begun),
                no_gap=NO_GAP,
                uncalled=tuple(each.name for each in self._layers if each.name not in self._seen),
                source=self._source(),
                fingerprint=ended,
                per_batch=self._every_batch(),
            )

    def __repr__(self) -> str:
        """The model's class, and how much was seen."""
        calls = sum(seen.all_calls for seen in self._seen.values())
        return (
            f"<bncli.capture of {type(self._model).__name__}: {len(self._seen)} of "
            f"{len(self._layers)} BatchNorm layers called, {calls} calls>"
        )

    def _every_batch(self) -> dict[tuple[str, Propagation], Mapping[str, Any]]:
        """The statistics of each batch, where they were asked for."""
        if not self._per_batch:
            return {}
        return {
            (name, mode): sums.batches()
            for name, seen in self._seen.items()
            for mode, sums in seen.sums.items()
        }

    def _watched(self, seen: _Seen) -> WatchedLayer:
        layer = seen.layer
        record = {mode: sums.result() for mode, sums in seen.sums.items()}
        still = Propagation.TRAINING in record and not seen.moved_in_training
        return WatchedLayer(
            layer.name,
            seen.order,
            next(iter(record.values())).num_features,
            state=layer.state(),
            frozen=layer.frozen or still,
            in_training=seen.in_training,
            calls=seen.calls,
            per_sample=layer.per_sample,
            kernel=self._kernels.found.get(layer.name),
            seen=record,
        )

    def _watched_input(self) -> WatchedLayer:
        """The model's input, with as many channels as it mostly had."""
        seen = [
            {mode: sums.result() for mode, sums in each.items()} for each in self._inputs.values()
        ]
        most = max(seen, key=lambda each: sum(sums.batches for sums in each.values()))
        return WatchedLayer("input", 0, next(iter(most.values())).num_features, seen=most)

    def _source(self) -> dict[str, Any]:
        """Where all this is from."""
        from bncli.live.surroundings import surroundings

        kind = type(self._model)
        devices = sorted({each.device.type for each in self._model.parameters()})
        return {
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "recorded": True,
            "device": ", ".join(devices) or "cpu",
            **surroundings(),
        }


def _said(error: Exception) -> str:
    """An error as part of a sentence."""
    if isinstance(error, BncliError):
        return str(error).rstrip(".")
    lines = str(error).strip().splitlines() or [""]
    return f"its input could not be taken in ({type(error).__name__}: {lines[-1].rstrip('.')})"


def _in_backward() -> bool:
    """Whether autograd runs, as when activations are computed for a second time."""
    import torch

    return bool(torch._C._current_graph_task_id() != -1)  # noqa: SLF001  # there is no other way
