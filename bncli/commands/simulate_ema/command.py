"""`bncli simulate-ema`: running statistics over many batches, under any framework's convention."""

from __future__ import annotations

from dataclasses import replace

from bncli.arguments import options
from bncli.commands.simulate_ema.flags import (
    BatchFlags,
    PlanFlags,
    RunningFlags,
    ShownFlags,
    SteppedFlags,
)
from bncli.report import Report


def simulate_ema(
    *,
    batches: BatchFlags,
    running: RunningFlags,
    plan: PlanFlags,
    comparison: SteppedFlags,
    shown: ShownFlags,
    distributed: options.Distributed = False,
    threads: options.Threads = None,
) -> Report:
    """Follow running statistics over many batches, and see what a momentum leaves in them.

    The report has the buffers of torch.nn.BatchNorm or another framework after each step, how long
    the initial value lasts, how noisy the result is, and the variance that unshuffled batches hide.
    """
    from bncli.commands.simulate_ema.against import Against
    from bncli.commands.simulate_ema.batch_source import open_source
    from bncli.commands.simulate_ema.running_start import resolve_rows, resolve_start
    from bncli.commands.simulate_ema.simulation import Simulation
    from bncli.loaders.patterns import expanded, natural

    against = Against.of(comparison)
    plan.check()
    if shown.plot is not None:
        from bncli.renderers.drawing.plot import check_plot

        check_plot(shown.plot)
    named = [file for spec in batches.inputs for file in expanded([spec], key=natural)]
    batches = replace(batches, inputs=named)
    if distributed:
        from bncli.arguments.distributed import check_distributed

        check_distributed(batches.inputs)
    source = open_source(batches, running.state)
    start = resolve_start(source.given, running)
    return Simulation(
        source=source,
        start=start,
        rows=resolve_rows(running, start),
        running=running,
        plan=plan,
        shown=shown,
        against=against,
        torch_threads=comparison.torch_threads,
        threads=threads,
        distributed=distributed,
    ).report()
