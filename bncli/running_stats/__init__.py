"""Running statistics: their update, other frameworks' conventions, and what a momentum leaves.

`update` is one step of `torch.nn.BatchNorm`; `conventions` says how other frameworks differ.
"""

from __future__ import annotations

from bncli.running_stats.update import update, update_factor

__all__ = ["update", "update_factor"]
