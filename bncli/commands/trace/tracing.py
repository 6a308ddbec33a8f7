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
    steps_answer,
    steps_table,
)
from bncli.commands.trace.words import (
    STRIDED_NOTE,
    difference_clauses,
    example_clause,
    identities_clause,
)
from bncli.errors import TensorError
from bncli.light import dataclass, np
from bncli.verify.trace import (
    MOST_ADDITIONS,
    MOST_ELEMENTS,
    ChannelView,
    Element,
    StoredTensor,
    Writer,
    backward_steps,
    could_train,
    differs_at,
    elements,
    float32_pass,
    float32_steps,
    forward_steps,
    gradients,
    identities,
    of_example,
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
    """What the report says of the trace.

    `example` is a sentence on one element, for a report without a `verdict`. `chain` has every step
    of the first channel, and of one element in it.
    """

    tables: tuple[Table, ...]
    answer: tuple[Table, ...]
    remarks: tuple[str, ...]
    facts: Row
    verdict: str
    example: str
    chain: list[Row]


@dataclass(frozen=True, slots=True)
class _Channel:
    """A channel that is traced, at `place` among these; `g` and `found` where gradients are."""

    place: int
    view: ChannelView
    writer: Writer
    g: ChannelView | None
    found: Gradients | None
    found32: Float32Pass | None


@dataclass(frozen=True, slots=True)
class Tracing:
    """A trace of what is `chosen`; the backward pass begins with the gradient `upstream`."""

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
        differing: dict[int, str] = {}
        told: dict[int, list[Row]] = {}
        chain: list[Row] = []
        digits = 0
        most = max(2, MOST_ELEMENTS // len(self.chosen.shown))
        for place, channel in enumerate(self.chosen.shown):
            one = self._channel(stored, place, channel, found32)
            digits = max(digits, one.writer.digits)
            element = self._element(one.view)
            forward, backward = self._steps(one, element)
            steps += self._step_rows(forward, channel, "forward", element)
            steps += self._step_rows(backward, channel, "backward", element)
            if place < self.chosen.told:
                told[channel] = self._brief_rows(one, element)
            if place == 0:
                chain = self._chain_rows(one, element)
            if self._beside_training():
                differing[channel] = self._difference(forward, channel)
            if one.g is not None and one.found is not None:
                held = identities(self.done, one.view, one.g, one.found)
                checks += [(channel, item) for item in held]
            values += self._element_rows(one, element, most)
        shape = TraceShape(
            backend=self.side.name if self.side is not None else None,
            gives_steps=self.side is not None and bool(self.side.steps),
            float32=self.float32,
            trained=self._beside_training(),
            backward=self.upstream is not None,
            centered=not self.float32 or self.done.settings.normalizes_with_batch,
            digits=digits,
        )
        tables = [
            steps_table(steps, shape, " ".join(filter(None, (self._left_out(), self._strided())))),
            elements_table(values, shape, self._shortened(most)),
        ]
        if self.upstream is not None:
            tables.append(identities_table(checks))
        verdict = difference_clauses(differing)
        if checks:
            verdict.append(identities_clause([item for _, item in checks]))
        return Traced(
            tuple(tables),
            self._answer(told, shape),
            tuple(filter(None, (self._strided(),))),
            self._facts(found32),
            "; ".join(verdict),
            example_clause(values[0]),
            chain,
        )

    def _answer(self, told: dict[int, list[Row]], shape: TraceShape) -> tuple[Table, ...]:
        """The steps of the first channels in brief, and where there is more."""
        total = self.done.stats.num_features
        more = [f"--channel shows another of the {total} channels"] * (
            not self.chosen.named and total > 1
        )
        left = len(self.chosen.wanted) - len(told)
        if self.chosen.named and left:
            more = [f"{left} more channel{'s' * (left > 1)}"]
        note = "; ".join([*more, "-v shows every step and element"])
        last = len(told) - 1
        return tuple(
            steps_answer(
                rows,
                shape,
                f"Channel {channel} of {total}" if total > 1 else "",
                note if number == last else "",
            )
            for number, (channel, rows) in enumerate(told.items())
        )

    def _channel(
        self, stored: StoredTensor, place: int, channel: int, found32: Float32Pass | None
    ) -> _Channel:
        """The channel at `place` among those traced, and its gradients where they are traced."""
        view = self._view(stored, channel)
        stats = self.done.stats
        writer = Writer.of(view, float(stats.mean[channel]), float(stats.var[channel]))
        found = g = None
        if self.upstream is not None:
            g = ChannelView(self.upstream, self.given.channel_axis, channel, lambda part: part)
            found = gradients(self.done, view, g)
        return _Channel(place, view, writer, g, found, found32)

    def _steps(self, one: _Channel, element: Element | None) -> tuple[list[Step], list[Step]]:
        """The steps forward and backward; those of `element` only where there is one."""
        if one.found32 is not None:
            forward = float32_steps(self.done, one.found32, one.place, one.view, element)
        else:
            forward = forward_steps(self.done, one.view, one.writer, element)
        if one.found is None or one.g is None:
            return forward, []
        return forward, backward_steps(self.done, one.found, one.view, one.g, one.writer, element)

    def _brief_rows(self, one: _Channel, element: Element | None) -> list[Row]:
        """The steps that the answer has: those of an element are of the first if none is chosen."""
        followed = element or _first(one.view)
        rows = []
        for steps in self._steps(one, followed):
            own = steps
            if element is None:
                own = of_example(steps, self.done, one.view.channel, one.writer, followed)
            rows += self._step_rows(own, one.view.channel, "", followed)
        return [row for row in rows if row["brief"]]

    def _chain_rows(self, one: _Channel, element: Element | None) -> list[Row]:
        """Every step, those of the element followed or of the first one among them."""
        followed = element or _first(one.view)
        forward, backward = self._steps(one, followed)
        rows = self._step_rows(forward, one.view.channel, "forward", followed)
        return rows + self._step_rows(backward, one.view.channel, "backward", followed)

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
                "brief": step.brief,
                "value": step.value,
            }
            if self.side is not None:
                theirs = None
                if step.value is not None:
                    theirs = self.side.value(step.quantity.partition("[")[0], channel, index)
                row |= {"torch": theirs, "distance": distance(step.value, theirs)}
            if self.float32:
                row |= rounding(step.value, step.exact)
            if self._beside_training():
                row |= {"training": step.training, "apart": step.apart}
            rows.append(row)
        return rows

    def _beside_training(self) -> bool:
        """Whether the values of training are shown beside those of evaluation."""
        return could_train(self.done) and not self.float32

    def _difference(self, steps: list[Step], channel: int) -> str:
        """Where evaluation differs from training, in a clause; "" where it does not."""
        found = differs_at(self.done, channel)
        step = next((step for step in steps if step.quantity == found), None)
        if step is None or step.value is None or step.training is None:
            return ""
        return (
            f"channel {channel} differs from training at {step.quantity}: {step.value:.7g} instead "
            f"of {step.training:.7g}"
        )

    def _strided(self) -> str:
        """That the bits are those of a contiguous copy, where they are."""
        from bncli.pytorch_cpu.float32 import is_strided

        layout = np.moveaxis(layout_of(self.given.tensors[0]), self.given.channel_axis, 1)
        return STRIDED_NOTE if self.float32 and is_strided(layout) else ""

    def _left_out(self) -> str:
        """That there are more channels, if none were chosen."""
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
            f"The first {most - most // 2} and the last {most // 2} of {count} elements per "
            "channel; --at follows any other."
        )

    def _element_rows(self, one: _Channel, element: Element | None, most: int) -> list[Row]:
        """A row for each element shown: the one followed, or at most this many."""
        view, found, found32 = one.view, one.found, one.found32
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
                deviation = found32.deviation(one.place, shown.x)
                with np.errstate(over="ignore"):
                    squares = deviation * deviation
                columns |= {"deviation": deviation.tolist(), "squared": squares.tolist()}
            columns["output"] = found32.output(one.place, shown.x).tolist()
            columns["exact"] = shown.output.tolist()
        if found is not None and one.g is not None:
            upstream = elements(self.done.norm, one.g, chosen).x
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


def _first(view: ChannelView) -> Element:
    """The channel's first element."""
    return Element(view.index(0), float(view.read(0, 1)[0]))
