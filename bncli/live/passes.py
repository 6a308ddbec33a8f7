"""One forward pass in a propagation, after which the model is as it was before.

Everything but the BatchNorm layers stays in evaluation mode, so that the difference between two
propagations is theirs alone. The layers' buffers are put aside while the model runs and copies take
their place: no pass writes into the model's own tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from typing import TYPE_CHECKING, Any

from bncli.light import dataclass
from bncli.live.layers import BUFFERS, LiveLayer, active_dropout
from bncli.live.random_streams import RandomStreams
from bncli.live.watching import EAGER
from bncli.model.capture import Propagation

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bncli.live.batch import Batch, Statistics

BY_BATCH = (Propagation.TRAINING, Propagation.AS_TRAINED)
"""The propagations in which layers normalise with their batch."""


@dataclass(slots=True)
class Runner:
    """Runs a model in any propagation. Use it inside `kept`, which puts everything back."""

    model: nn.Module
    layers: list[LiveLayer]
    device: str = "cpu"
    seed: int = 0
    _buffers: list[_Buffer] = field(default_factory=list)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever runs inside, modes, buffers, hooks and random state are as before afterwards.

        No pass begins with buffers that another left. What torch.compile made runs as it was
        written.
        """
        modules = list(self.model.modules())
        modes = [module.training for module in modules]
        before = [(module, dict(module._buffers)) for module in modules]  # noqa: SLF001
        outer = self._buffers
        self._buffers = [
            _Buffer(module, name, tensor, tensor.clone(), _version(tensor))
            for module, held in before  # those that are not saved too
            for name, tensor in held.items()
            if tensor is not None
        ]
        with _random_state(self.seed), EAGER:
            try:
                yield
            finally:
                for module, mode in zip(modules, modes, strict=True):
                    module.training = mode
                for buffer in self._buffers:
                    buffer.put_back()
                for module, held in before:
                    _drop_others(module, held)
                self._buffers = outer

    def forward(
        self,
        batch: Batch,
        propagation: Propagation,
        statistics: Mapping[str, Statistics] | None = None,
        number: int = 0,
    ) -> Any:
        """The model's output for a batch.

        `statistics` replace those that the layers of these names have. `number` is the batch's:
        what is random in the model is alike in all its passes.
        """
        import torch

        from bncli.live.users_code import users_code

        args, kwargs = _moved((batch.args, dict(batch.kwargs)), self.device)
        for buffer in self._buffers:  # now, as the output may have been one of them
            buffer.put_back_if_changed()
        with (
            torch.no_grad(),
            self._buffers_aside(statistics or {}),
            RandomStreams(self.seed + number).drawing(),
            users_code(f"the model on {batch.label}"),
        ):
            self._set_modes(propagation)
            return self.model(*args, **kwargs)

    def _set_modes(self, propagation: Propagation) -> None:
        """Evaluation mode for all; training for the BatchNorm layers where the batch normalises."""
        self.model.eval()
        for layer in self.layers:
            if layer.frozen:
                layer.module.training = False
            elif propagation in BY_BATCH or layer.in_training:  # as evaluation would run it
                layer.module.training = True
        if propagation is Propagation.AS_TRAINED:
            for _, module in active_dropout(self.model):
                module.training = True

    def give(self, layer: LiveLayer, statistics: Statistics) -> None:
        """Put statistics into a layer's buffers while the model runs, in the dtype that it has."""
        import torch

        buffers: dict[str, Any] = layer.module._buffers  # noqa: SLF001  # to swap, not to write
        typical = buffers.get("running_var")
        if typical is None:
            typical = getattr(layer.module, "weight", None)
        dtype = torch.float32 if typical is None else typical.dtype
        where = self.device if typical is None else typical.device
        for name, values in zip(BUFFERS, statistics, strict=False):
            buffers[name] = torch.as_tensor(values).to(device=where, dtype=dtype)

    @contextmanager
    def _buffers_aside(self, statistics: Mapping[str, Statistics]) -> Iterator[None]:
        """Copies in place of the layers' buffers, or the statistics given."""
        aside = []
        for layer in self.layers:
            buffers: dict[str, Any] = layer.module._buffers  # noqa: SLF001  # to swap, not to write
            for name in BUFFERS:
                if name in buffers:
                    aside.append((buffers, name, buffers[name]))
                    if buffers[name] is not None:
                        buffers[name] = buffers[name].clone()
            if layer.name in statistics:
                self.give(layer, statistics[layer.name])
        try:
            yield
        finally:
            for buffers, name, tensor in aside:
                buffers[name] = tensor


@dataclass(slots=True)
class _Buffer:
    """A buffer of a module: the tensor itself, what was in it, and how often it was written to."""

    module: nn.Module
    name: str
    tensor: Tensor
    copy: Tensor
    version: int | None

    def put_back(self) -> None:
        """The same tensor with the same bytes."""
        import torch

        buffers: dict[str, Any] = self.module._buffers  # noqa: SLF001
        with torch.no_grad():
            if not same_bytes(self.tensor, self.copy):
                self.tensor.copy_(self.copy)
        if not isinstance(self.module, torch.jit.ScriptModule):  # which holds no tensors of Python
            buffers[self.name] = self.tensor
        self.version = _version(self.tensor)

    def put_back_if_changed(self) -> None:
        """The same, at no cost where nothing wrote to it."""
        held = dict(self.module._buffers).get(self.name)  # noqa: SLF001
        if held is not self.tensor or self.version is None or self.version != _version(self.tensor):
            self.put_back()


def _drop_others(module: nn.Module, before: Mapping[str, Tensor | None]) -> None:
    """Take away the buffers that the model added, or filled where there was None."""
    buffers: dict[str, Any] = module._buffers  # noqa: SLF001
    for name in [name for name in buffers if name not in before]:
        del buffers[name]
    for name, tensor in before.items():
        if tensor is None and name in buffers:
            buffers[name] = None


def _version(tensor: Tensor) -> int | None:
    """How often a tensor was written to in place; None where PyTorch does not count that."""
    return None if tensor.is_inference() else tensor._version  # noqa: SLF001


def same_bytes(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors of one dtype and shape have equal bytes, NaN included."""
    import torch

    try:
        return torch.equal(a, b) or torch.equal(
            a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8)
        )
    except RuntimeError:  # a scalar, or a layout without bytes of its own
        return False


def _moved(value: Any, device: str) -> Any:
    """The tensors in lists and dictionaries on a device; everything else as it is."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _moved(each, device) for key, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_moved(each, device) for each in value)
    return value


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Seeded generators of Python, NumPy and torch while the block runs; as before afterwards."""
    import torch

    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    try:
        with RandomStreams(seed).drawing():
            yield
    finally:
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
