"""The nodes of a torch.export program as its JSON has them: operators, arguments, signature."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bncli.light import dataclass


@dataclass(frozen=True, slots=True)
class Node:
    """A call of an operator: its name without what stands before and behind, and its arguments."""

    operator: str
    args: Mapping[str, Any]
    outputs: tuple[str, ...]
    label: str
    class_name: str

    def tensor(self, *names: str) -> str:
        """The name of the value that an argument is, "" where it is none."""
        for name in names:
            if found := tensor_name(self.args.get(name)):
                return found
        return ""

    def number(self, names: tuple[str, ...]) -> float | None:
        """The number that an argument is; None where it is none or the graph computes it."""
        for name in names:
            arg = self.args.get(name)
            value = table(arg).get("as_float", table(arg).get("as_int"))
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value) if abs(value) < float("inf") else None
        return None

    def flag(self, name: str) -> bool | None:
        """The truth value that an argument is."""
        value = table(self.args.get(name)).get("as_bool")
        return value if isinstance(value, bool) else None


def signature_of(signature: Any) -> Iterator[tuple[str, str]]:
    """The inputs of a graph that are tensors of the program: their names there, and their own."""
    for spec in listed(table(signature).get("input_specs")):
        for kind in ("parameter", "buffer", "tensor_constant"):
            said = table(table(spec).get(kind))
            name, full = table(said.get("arg")).get("name"), said.get(f"{kind}_name")
            if isinstance(name, str) and isinstance(full, str):
                yield name, full


def nodes_of(graph: Any) -> Iterator[Node]:
    """The nodes of a graph that are as the schema has them."""
    for node in listed(table(graph).get("nodes")):
        target = table(node).get("target")
        if not isinstance(target, str):
            continue
        parts = target.split(".")
        at = parts.index("aten") + 1 if "aten" in parts[:-1] else len(parts) - 1
        args: dict[str, Any] = {}
        for each in map(table, listed(node.get("inputs"))):
            name = each.get("name")
            # Those of cond and such have no names.
            args[name if isinstance(name, str) and name else f"#{len(args)}"] = each.get("arg")
        outputs = tuple(filter(None, map(tensor_name, listed(node.get("outputs")))))
        label = node.get("name")
        label = label if isinstance(label, str) else next(iter(outputs), parts[at])
        yield Node(parts[at], args, outputs, label, _class_name(node.get("metadata")))


def _class_name(metadata: Any) -> str:
    """The class of the module in which a node is, if it is such a norm: "BatchNorm2d"."""
    stack = table(metadata).get("nn_module_stack")
    last = stack.rpartition(";")[2] if isinstance(stack, str) else ""
    name = last.rpartition(",")[2].rpartition(".")[2]
    return name if "BatchNorm" in name or "InstanceNorm" in name else "BatchNorm"


def operands_of(arg: Any) -> list[str]:
    """The values of an argument, "" for each that is not a tensor."""
    many = table(arg).get("as_tensors")
    if isinstance(many, list):
        return [tensor_name({"as_tensor": each}) for each in many]
    return [tensor_name(arg)]


def inputs_of(args: Mapping[str, Any]) -> Iterator[str]:
    """The names of the values that a node takes, in order."""
    for arg in args.values():
        yield from filter(None, operands_of(arg))


def tensor_name(arg: Any) -> str:
    """The name of the tensor that a value is, "" where it is none."""
    for _ in range(2):  # an optional tensor holds a tensor
        said = table(arg)
        arg = said.get("as_tensor", said.get("as_optional_tensor"))
        name = table(arg).get("name")
        if isinstance(name, str):
            return name
    return ""


def table(value: Any) -> dict[str, Any]:
    """A JSON object, an empty one where it is none."""
    return value if isinstance(value, dict) else {}


def listed(value: Any) -> list[Any]:
    """A JSON list, an empty one where it is none."""
    return value if isinstance(value, list) else []
