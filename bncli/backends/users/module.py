"""A module class of the user's: made, given a layer's state, and run forward and backward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bncli.backends.torch.tensors import laid_out, library, to_array, to_tensor, way_of
from bncli.backends.users.arguments import Taken, module_arguments
from bncli.backends.users.arrays import kind_of
from bncli.backends.users.results import output_of, overwritten, per_channel, run_of
from bncli.errors import ModelError
from bncli.light import dataclass

if TYPE_CHECKING:
    from bncli.backends.interface import BackendRun, BatchNormCall
    from bncli.backends.users.guard import Code


@dataclass(frozen=True, slots=True)
class ModuleBackend:
    """A `torch.nn.Module` class with BatchNorm's arguments, or a function that makes a module.

    Its state has PyTorch's names; num_batches_tracked may be missing. Gradients are autograd's.
    """

    code: Code

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
        """Run forward and, where the output has a gradient, backward; see `Backend.run`.

        Raises ModelError where the class cannot be made for this layer, lacks state, raises, or
        returns what no BatchNorm does.
        """
        with way_of(call):
            return self._run(call)

    def _run(self, call: BatchNormCall) -> BackendRun:
        """Run with the threads that are set."""
        torch = library()
        code, features = self.code, call.x.shape[call.channel_axis]
        dtype = getattr(torch, call.dtype)
        leaf = laid_out(to_tensor(call.x, dtype).movedim(call.channel_axis, 1), call.memory_format)
        leaf = leaf.to(call.device).requires_grad_()
        x = leaf.clone()  # as in a network, where no input is a leaf
        module = self._made(call)
        with code.running(f"{code.called}'s forward pass"):
            y = module(x)
        output = output_of(y, x, call.dtype, code)
        if not isinstance(y, torch.Tensor):
            raise ModelError(f"{code.called}: the output is {kind_of(y)}, not a tensor.")
        found: dict[str, Any] = {"output": output}
        parameters = dict(module.named_parameters())
        if y.requires_grad:
            gradient = torch.empty_like(y)
            gradient.copy_(to_tensor(call.grad_output, dtype).movedim(call.channel_axis, 1))
            with code.running(f"{code.called}'s backward pass"):
                y.backward(gradient)
            gradients = {
                "grad_input": leaf,
                "grad_weight": parameters.get("weight"),
                "grad_bias": parameters.get("bias"),
            }
            for name, tensor in gradients.items():
                if tensor is not None and tensor.grad is not None:
                    found[name] = to_array(tensor.grad)
                    if name != "grad_input":
                        found[name] = per_channel(found[name], features, name, code)
        changed = overwritten("x", to_array(leaf), to_array(x))
        state = module.state_dict()
        if call.running is not None:
            for name in ("running_mean", "running_var"):
                found[name] = per_channel(_kept(state, name, code), features, name, code)
            if state.get("num_batches_tracked") is not None:
                found["num_batches_tracked"] = to_array(state["num_batches_tracked"]).reshape(1)
        for name, before in (("weight", call.weight), ("bias", call.bias)):
            if before is not None:
                now = per_channel(state[name], features, name, code)
                changed += overwritten(name, before, now)
        return run_of(found, call, changed, torch.get_num_threads())

    def _made(self, call: BatchNormCall) -> Any:
        """The module, in the wanted mode and with the wanted state."""
        torch = library()
        code = self.code
        taken = Taken.of(code.value)
        arguments = module_arguments(taken, call, code.called)
        dtype = getattr(torch, call.parameter_dtype)
        if "dtype" in taken.names:
            arguments["dtype"] = dtype
        with code.running(f"making {code.called}"):
            module = code.value(call.x.shape[call.channel_axis], **arguments)
        if not isinstance(module, torch.nn.Module):
            raise ModelError(f"{code.called} makes {type(module).__name__}, not a torch.nn.Module.")
        with code.running(f"moving {code.called} to {call.parameter_dtype} on {call.device}"):
            module = module.to(device=call.device, dtype=dtype)
            state = module.state_dict()
        wanted: dict[str, Any] = {}
        if call.weight is not None and call.bias is not None:
            wanted |= {"weight": call.weight, "bias": call.bias}
        if call.running is not None:
            wanted |= {
                "running_mean": call.running.running_mean,
                "running_var": call.running.running_var,
            }
        for name, values in wanted.items():
            held = _kept(state, name, code)
            per_channel(held, len(values), name, code)
            wanted[name] = torch.from_numpy(values.copy()).reshape(held.shape)
        if call.running is not None and state.get("num_batches_tracked") is not None:
            counter = state["num_batches_tracked"]
            wanted["num_batches_tracked"] = torch.full_like(
                counter, call.running.num_batches_tracked
            )
        with code.running(f"giving {code.called} its state"):
            module.load_state_dict(wanted, strict=False)
            module.train(call.settings.training)
        return module


def _kept(state: dict[str, Any], name: str, code: Code) -> Any:
    """A tensor of a module's state. Raises ModelError where it has none of that name."""
    if state.get(name) is None:
        has = ", ".join(state) or "nothing"
        raise ModelError(
            f"{code.called}: its state has no {name}, which this layer needs; it has {has}."
        )
    return state[name]
