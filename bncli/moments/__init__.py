"""One pass over a tensor of any size: the statistics of each channel, exact and mergeable.

`channel_stats` (in `engine`) has a tensor's values from a `source` in an order and in pieces that
`layout` decides; each `worker` thread widens them to float64 (`values`) and sums them (`kernels`),
and the sums are pooled in order (`pooling`). Memory is bounded by the workers' buffers, whatever
the tensor's size.

Where NumKong is installed (the extra `fast`), long runs of float32 and of halves are summed by its
kernels (`fast`) without being widened to float64; everything else, and everything where it is
absent, by NumPy. Both are within the same 1e-12, and `ChannelStats.engines` says which it was.
"""

from __future__ import annotations

from bncli.moments.engine import channel_moments, channel_stats
from bncli.moments.pooling import merge

__all__ = ["channel_moments", "channel_stats", "merge"]
