"""`--distributed`: the processes that torchrun started work on one call together.

torch is imported here where they meet, and nowhere else in this package. What the ranks say to each
other goes through torchrun's store, so that none waits for one that has failed; payloads go by
torch.distributed with gloo.
"""

from bncli.process.ranks.group import Ranks, current
from bncli.process.ranks.together import together

__all__ = ["Ranks", "current", "together"]
