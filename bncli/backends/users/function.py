"""A function of the user's on the arrays of any library: one pass, with gradients by autograd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.backends.torch.tensors import laid_out, library, to_array, to_tensor, way_of
from bncli.backends.users.arguments import ARGUMENTS, Taken, function_arguments
from bncli.backends.users.arrays import Arrays, arrays_of, is_torch, to_numpy
from bncli.backends.users.results import output_of, overwritten, per_channel, run_of
from bncli.errors import ModelError
from bncli.light import dataclass, np

if TYPE_CHECKING:
    from bncli.backends.interface import BackendRun, BatchNormCall, Overwritten
    from bncli.backends.users.guard import Code

RUNNING = ("running_mean", "running_var")


@dataclass(frozen=True, slots=True)
class FunctionBackend:
    """A function on arrays that is no PyTorch's; it gives no gradients.

    The input has its channels on axis 1. weight and bias are None where affine is off,
    running_mean and running_var where they are not tracked; then `training` is True, as the batch
    normalises. `momentum` is the weight of the batch, also where the layer averages all batches.
    """

    code: Code
    taken: Taken

    @property
    def name(self) -> str:
        """How it was chosen; see `IsUsers`."""
        return self.code.name

    @property
    def called(self) -> str:
        """Its name in the code; see `IsUsers.called`."""
        return self.code.called

    def version(self) -> str:
        """The version of its package; see `Backend.version`."""
        return self.code.version

    def run(self, call: BatchNormCall) -> BackendRun:
        """Run the function; see `Backend.run`.

        Raises ModelError where it takes other arguments, raises, or returns what no BatchNorm does.
        """
        code = self.code
        arrays = arrays_of(code, self.taken.first)

        def made(values: Any) -> Any:
            return None if values is None else arrays.made(values, call.parameter_dtype, code)

        x = arrays.made(np.moveaxis(call.x, call.channel_axis, 1), call.dtype, code)
        before = to_numpy(x, "the input", code)
        values = _values(call, made)
        result = self._called(x, values, call, arrays)
        output, running = _unpacked(result, values, call, code)
        found: dict[str, Any] = {"output": output_of(output, x, call.dtype, code), **running}
        changed = overwritten("x", before, to_numpy(x, "the input", code))
        return run_of(found, call, changed + _changed(values, call, code))

    def _called(self, x: Any, values: dict[str, Any], call: BatchNormCall, arrays: Arrays) -> Any:
        """What the function returns."""
        code = self.code
        positions, names = function_arguments(self.taken, values, call, code.called)
        try:
            with code.running(code.called):
                return code.value(x, *positions, **names)
        except ModelError as error:
            if not (arrays.assumed and isinstance(error.__cause__, AttributeError | TypeError)):
                raise
            raise ModelError(
                f"{error} It was given NumPy arrays; where it takes others, annotate its first "
                "parameter, such as x: torch.Tensor."
            ) from error


@dataclass(frozen=True, slots=True)
class TensorFunctionBackend:
    """A function on PyTorch's tensors, with autograd's gradients; else as `FunctionBackend`."""

    code: Code
    taken: Taken

    @property
    def name(self) -> str:
        """How it was chosen; see `IsUsers`."""
        return self.code.name

    @property
    def called(self) -> str:
        """Its name in the code; see `IsUsers.called`."""
        return self.code.called

    @property
    def devices(self) -> tuple[str, ...]:
        """Where PyTorch runs; see `ChoosesPath.devices`."""
        return ("cpu", "cuda")

    def version(self) -> str:
        """The version of its package; see `Backend.version`."""
        return self.code.version

    def run(self, call: BatchNormCall) -> BackendRun:
        """Run forward and, where the output has a gradient, backward; as `FunctionBackend.run`."""
        with way_of(call):
            return self._run(call)

    def _run(self, call: BatchNormCall) -> BackendRun:
        """Run with the threads that are set."""
        torch = library()
        code, features = self.code, call.x.shape[call.channel_axis]
        dtype, kept = getattr(torch, call.dtype), getattr(torch, call.parameter_dtype)

        def made(values: Any) -> Any:
            return None if values is None else to_tensor(values, kept).to(call.device)

        leaf = laid_out(to_tensor(call.x, dtype).movedim(call.channel_axis, 1), call.memory_format)
        leaf = leaf.to(call.device).requires_grad_()
        x = leaf.clone()  # as in a network, where no input is a leaf
        values = _values(call, made)
        leaves = {"grad_input": leaf, "grad_weight": values["weight"], "grad_bias": values["bias"]}
        for tensor in leaves.values():
            if tensor is not None:
                tensor.requires_grad_()
        positions, names = function_arguments(self.taken, values, call, code.called)
        with code.running(code.called):
            result = code.value(x, *positions, **names)
        y, running = _unpacked(result, values, call, code)
        found: dict[str, Any] = {"output": output_of(y, x, call.dtype, code), **running}
        if getattr(y, "requires_grad", False):
            gradient = torch.empty_like(y)
            gradient.copy_(to_tensor(call.grad_output, dtype).movedim(call.channel_axis, 1))
            with code.running(f"{code.called}'s backward pass"):
                y.backward(gradient)
            for name, tensor in leaves.items():
                if tensor is not None and tensor.grad is not None:
                    found[name] = to_array(tensor.grad)
                    if name != "grad_input":
                        found[name] = per_channel(found[name], features, name, code)
        changed = overwritten("x", to_array(leaf), to_array(x))
        changed += _changed(values, call, code)
        return run_of(found, call, changed, torch.get_num_threads())


def function_backend(code: Code) -> FunctionBackend | TensorFunctionBackend:
    """The backend that a function is, by the arrays that it takes."""
    taken = Taken.of(code.value)
    kind = TensorFunctionBackend if is_torch(taken.first) else FunctionBackend
    return kind(code, taken)


def _values(call: BatchNormCall, made: Any) -> dict[str, Any]:
    """What a function is given behind the input, by name; `made` makes an array of its library."""
    settings, running = call.settings, call.running
    momentum = settings.momentum
    if momentum is None:
        momentum = 0.0 if running is None else 1 / (running.num_batches_tracked + 1)
    given = (
        made(call.weight),
        made(call.bias),
        made(None if running is None else running.running_mean),
        made(None if running is None else running.running_var),
        settings.normalizes_with_batch,
        momentum,
        settings.eps,
    )
    return dict(zip(ARGUMENTS, given, strict=True))


def _unpacked(
    result: Any, values: dict[str, Any], call: BatchNormCall, code: Code
) -> tuple[Any, dict[str, Any]]:
    """The output, and the running statistics after the pass: returned, or changed in place."""
    running = [values[name] for name in RUNNING]
    if isinstance(result, tuple | list):
        if len(result) != 3:
            raise ModelError(
                f"{code.called} returned {len(result)} values; a function returns the output, or "
                "(output, running_mean, running_var)."
            )
        result, *returned = result
        running = [
            kept if one is None else one for kept, one in zip(running, returned, strict=True)
        ]
    if call.running is None:
        return result, {}
    features = call.x.shape[call.channel_axis]
    return result, {
        name: per_channel(value, features, name, code)
        for name, value in zip(RUNNING, running, strict=True)
    }


def _changed(values: dict[str, Any], call: BatchNormCall, code: Code) -> tuple[Overwritten, ...]:
    """What of weight and bias the function overwrote."""
    found: tuple[Overwritten, ...] = ()
    for name, before in (("weight", call.weight), ("bias", call.bias)):
        if before is not None:
            found += overwritten(name, before, to_numpy(values[name], name, code))
    return found
