"""One pass over a tensor of any size: the statistics of each channel, exact and mergeable.

`channel_stats` (in `engine`) has a tensor's values from a `source` in an order and in pieces that
`layout` decides; each `worker` thread widens them to float64 (`values`) and sums them (`kernels`),
and the sums are pooled in order (`pooling`). Memory is bounded by the workers' buffers, whatever
the tensor's size.
"""

from __future__ import annotations

from bncli.moments.engine import channel_moments, channel_stats
from bncli.moments.pooling import merge

__all__ = ["channel_moments", "channel_stats", "merge"]
