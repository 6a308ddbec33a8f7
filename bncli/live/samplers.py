"""Loaders that divide their data among ranks by themselves, with a DistributedSampler."""

from __future__ import annotations

from typing import Any

from bncli.backends.torch.tensors import library


def sampler_of(loader: Any) -> Any | None:
    """The DistributedSampler by which a DataLoader divides its data, None where it has none."""
    if not isinstance(loader, library().utils.data.DataLoader):
        return None
    from torch.utils.data.distributed import DistributedSampler

    inner = getattr(loader.batch_sampler, "sampler", None)
    return next(
        (each for each in (loader.sampler, inner) if isinstance(each, DistributedSampler)), None
    )


def uneven_samples(sampler: Any) -> str:
    """What a DistributedSampler does to samples so that all ranks have as many; "" for nothing."""
    more = int(sampler.total_size) - len(sampler.dataset)
    samples = "1 sample" if abs(more) == 1 else f"{abs(more)} samples"
    if more > 0:
        return f"gives {samples} twice"
    return f"leaves out {samples}" if more else ""
