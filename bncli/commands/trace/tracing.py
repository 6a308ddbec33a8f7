"""The rows of `bncli trace`: steps, elements and identities of the channels chosen."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from bncli.arguments.input import layout_of
from bncli.commands.trace.tables import (
    TraceShape,
    distance,
    elements_table,
    identities_table,
    rounding,
    steps_table,
)
from bncli.errors import TensorError
from bncli.light import dataclass, np
from bncli.rulebook.interface import name_channels
from bncli.verify.trace import (
    MOST_ADDITIONS,
    MOST_ELEMENTS,
    ChannelView,
    Element,
    StoredTensor,
    Writer,
    backward_steps,
    could_train,
    elements,
    float32_pass,
    float32_steps,
    forward_steps,
    gradients,
    identities,
    parts_at,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from bncli.arguments.input import Input
    from bncli.commands.trace.choice import Chosen
    from bncli.commands.trace.input import BackendSide
    from bncli.commands.trace.tables import Row
    from bncli.report import Table
    from bncli.verify.batch_norm_pass import BatchNormPass
    from bncli.verify.trace import Float32Pass, Gradients, Identity, Step


@dataclass(frozen=True, slots=True)
class Traced:
    """What the report says of the trace."""

    tables: tuple[Table, ...]
    facts: Row
    verdict: str


@dataclass(frozen=True, slots=True)
class Tracing:
    """A trace to be made of what is `chosen`; `upstream` is the gradient to go back from."""

    given: Input
    done: BatchNormPass
    chosen: Chosen
    upstream: NDArray[Any] | None
    side: BackendSide | None
    float32: bool

    def run(self) -> Traced:
        """Trace every channel and put the rows into tables."""
        with ExitStack() as stack:
            tensor = self.given.tensors[0]
            return self._run(StoredTensor(tensor.shape, tensor.stored_reader(stack)))

    def _run(self, stored: StoredTensor) -> Traced:
        found32 = self._float32_pass(stored) if self.float32 else None
        steps: list[Row] = []
        values: list[Row] = []
        checks: list[tuple[int, Identity]] = []
        parted: dict[int, str] = {}
        digits = 0
        most = max(2, MOST_ELEMENTS // len(self.chosen.shown))
        for place, channel in enumerate(self.chosen.shown):
            view = self._view(stored, channel)
            writer = Writer.of(
                view, float(self.done.stats.mean[channel]), float(self.done.stats.var[channel])
            )
            digits = max(digits, writer.digits)
            element = self._element(view)
            if found32 is not None:
                forward = float32_steps(self.done, found32, place, view, element)
            else:
                forward = forward_steps(self.done, view, writer, element)
            steps += self._step_rows(forward, channel, "forward", element)
            if self._parts():
                parted[channel] = self._parting(forward, channel)
            found = g = None
            if self.upstream is not None:
                g = ChannelView(self.upstream, self.given.channel_axis, channel, lambda part: part)
                found = gradients(self.done, view, g)
                backward = backward_steps(self.done, found, view, g, writer, element)
                steps += self._step_rows(backward, channel, "backward", element)
                checks += [(channel, item) for item in identities(self.done, view, g, found)]
            values += self._element_rows(view, element, most, found, g, found32, place)
        shape = TraceShape(
            backend=self.side.name if self.side is not None else None,
            gives_steps=self.side is not None and bool(self.side.steps),
            float32=self.float32,
            parts=self._parts(),
            backward=self.upstream is not None,
            centered=not self.float32 or self.done.settings.normalizes_with_batch,
            digits=digits,
        )
        tables = [
            steps_table(steps, shape, self._notes()),
            elements_table(values, shape, self._shortened(most)),
        ]
        if self.upstream is not None:
            tables.append(identities_table(checks))
        verdict = _partings(parted)
        if checks:
            verdict.append(_held([item for _, item in checks]))
        return Traced(tuple(tables), self._facts(found32), " ".join(verdict))

    def _view(self, stored: StoredTensor, channel: int) -> ChannelView:
        dtype = self.given.tensors[0].dtype
        return ChannelView(
            stored, self.given.channel_axis, channel, lambda part: self.given.decoded(part, dtype)
        )

    def _element(self, view: ChannelView) -> Element | None:
        """The element followed, in the channel of `view`."""
        if self.chosen.followed is None:
            return None
        position = view.position(self.chosen.followed)
        return Element(view.index(position), float(view.read(position, position + 1)[0]))

    def _float32_pass(self, stored: StoredTensor) -> Float32Pass:
        """PyTorch's arithmetic on the channels shown."""
        from bncli.pytorch_cpu.float32 import sums_by_rows

        axis = self.given.channel_axis
        rows = sums_by_rows(np.moveaxis(layout_of(self.given.tensors[0]), axis, 1))
        threads = 1 if self.side is None else self.side.threads
        count = self.done.stats.count
        if rows and self.done.settings.normalizes_with_batch and count > MOST_ADDITIONS * threads:
            raise TensorError(
                f"{self.given.label}: {count} rows; --arithmetic float32 repeats PyTorch's "
                f"additions one by one, {MOST_ADDITIONS} at most: trace a part of them."
            )
        every = (slice(None),) * axis
        parts = [stored[(*every, slice(channel, channel + 1))] for channel in self.chosen.shown]
        x = np.moveaxis(np.concatenate(parts, axis), axis, 1)
        x = self.given.decoded(x, self.given.tensors[0].dtype)
        return float32_pass(self.done, x, self.chosen.shown, rows=rows, threads=threads)

    def _facts(self, found: Float32Pass | None) -> Row:
        if found is None or found.batch is None:
            return {}
        layout = "rows" if found.rows else "contiguous"
        return {"summed": layout, "torch_threads": found.threads if found.rows else None}

    def _step_rows(
        self, steps: list[Step], channel: int, direction: str, element: Element | None
    ) -> list[Row]:
        rows = []
        index = element.index if element is not None else None
        for number, step in enumerate(steps, 1):
            row: Row = {
                "channel": channel,
                "pass": direction,
                "step": number,
                "quantity": step.quantity,
                "formula": step.formula,
                "numbers": step.numbers,
                "value": step.value,
            }
            if self.side is not None:
                theirs = None
                if step.value is not None:
                    theirs = self.side.value(step.quantity, channel, index)
                row |= {"torch": theirs, "distance": distance(step.value, theirs)}
            if self.float32:
                row |= rounding(step.value, step.exact)
            if self._parts():
                row |= {"training": step.training, "apart": step.apart}
            rows.append(row)
        return rows

    def _parts(self) -> bool:
        """Whether evaluation is set beside training."""
        return could_train(self.done) and not self.float32

    def _parting(self, steps: list[Step], channel: int) -> str:
        """Where evaluation parts from training, in a sentence; "" where it does not."""
        found = parts_at(self.done, channel)
        step = next((step for step in steps if step.quantity == found), None)
        if step is None or step.value is None or step.training is None:
            return ""
        return (
            f"Channel {channel} parts from training at {step.quantity}: {step.value:.7g} in place "
            f"of {step.training:.7g}."
        )

    def _notes(self) -> str:
        """That there are more channels, and that the bits are those of a contiguous copy."""
        from bncli.pytorch_cpu.float32 import is_strided

        notes = [self._left_out()]
        layout = np.moveaxis(layout_of(self.given.tensors[0]), self.given.channel_axis, 1)
        if self.float32 and is_strided(layout):
            notes.append(STRIDED_NOTE)
        return " ".join(filter(None, notes))

    def _left_out(self) -> str:
        """That there are more channels, where nobody chose these."""
        channels = self.done.stats.num_features
        if self.chosen.named or len(self.chosen.shown) == channels:
            return ""
        return (
            f"The first {len(self.chosen.shown)} of {channels} channels; --channel chooses others."
        )

    def _shortened(self, most: int) -> str:
        """That there are more elements than are listed."""
        count = self.done.stats.count
        if self.chosen.followed is not None or count <= most:
            return ""
        return (
            f"The first {most - most // 2} and the last {most // 2} of {count} elements a channel; "
            "--at follows any."
        )

    def _element_rows(
        self,
        view: ChannelView,
        element: Element | None,
        most: int,
        found: Gradients | None,
        g: ChannelView | None,
        found32: Float32Pass | None,
        place: int,
    ) -> list[Row]:
        """A row for each element shown: the one followed, or at most so many."""
        chosen: int | list[int] = most
        if element is not None and self.chosen.followed is not None:
            chosen = [view.position(self.chosen.followed)]
        shown = elements(self.done.norm, view, chosen)
        columns: dict[str, list[Any]] = {"x": shown.x.tolist()}
        if found32 is None:
            columns |= {
                name: getattr(shown, name).tolist()
                for name in ("deviation", "squared", "x_hat", "output")
            }
        else:
            if found32.batch is not None:
                deviation = found32.deviation(place, shown.x)
                with np.errstate(over="ignore"):
                    squares = deviation * deviation
                columns |= {"deviation": deviation.tolist(), "squared": squares.tolist()}
            columns["output"] = found32.output(place, shown.x).tolist()
            columns["exact"] = shown.output.tolist()
        if found is not None and g is not None:
            upstream = elements(self.done.norm, g, chosen).x
            columns["g"] = upstream.tolist()
            columns["grad_input"] = found.grad_input(upstream, shown.x_hat).tolist()
        rows = []
        for number, position in enumerate(shown.positions):
            index = view.index(position)
            row: Row = {"channel": view.channel, "index": index}
            row |= {name: values[number] for name, values in columns.items()}
            if found32 is not None:
                off = rounding(columns["output"][number], columns["exact"][number])
                row |= {key: off[key] for key in ("difference", "ulps")}
            if self.side is not None:
                names = ["output"] + ["grad_input"] * (found is not None)
                for name in names:
                    theirs = self.side.value(name, view.channel, index)
                    row[f"torch_{name}"] = theirs
                    row[f"distance_{name}"] = distance(columns[name][number], theirs)
            rows.append(row)
        return rows


STRIDED_NOTE = (
    "The input is strided, which PyTorch sums in another way: these are the bits of its contiguous "
    "copy."
)

FEW_SENTENCES = 3
"""Channels of which a sentence says where evaluation parts from training."""


def _partings(parted: dict[int, str]) -> list[str]:
    """The sentences of the channels that part from training, and which ones do not."""
    sentences = [sentence for sentence in parted.values() if sentence]
    alike = [channel for channel, sentence in parted.items() if not sentence]
    said = sentences[:FEW_SENTENCES]
    if len(sentences) > FEW_SENTENCES:
        more = len(sentences) - FEW_SENTENCES
        said.append(f"So do{'es' * (more == 1)} {more} more channel{'s' * (more != 1)}.")
    if alike and not sentences:
        said.append("Evaluation normalises here as training does, to within rounding.")
    elif alike:
        verb = "is" if len(alike) == 1 else "are"
        names = name_channels(alike).capitalize()
        said.append(f"{names} {verb} normalised as in training, to within rounding.")
    return said


def _held(checks: list[Identity]) -> str:
    """How many identities hold."""
    judged = [item for item in checks if item.holds is not None]
    failed = sum(not item.holds for item in judged)
    if failed:
        return f"{failed} of {len(judged)} identities do not hold."
    if not judged:
        return "No identity can be judged: the numbers are not finite."
    if len(judged) < len(checks):
        lost = len(checks) - len(judged)
        return f"{len(judged)} identities hold; {lost} cannot be judged: numbers are not finite."
    return f"All {len(judged)} identities hold."
