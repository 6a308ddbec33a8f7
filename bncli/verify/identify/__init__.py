"""Which normalisation made an output from an input; which convention updated running statistics.

hypotheses   the ways in which an output may have been made, as data
pair         the two tensors, read block by block, and measured against a map
search       hypotheses ranked by what they leave unexplained
views        axes, orders and roundings in which the tensors may have to be seen
output       the search over all of them, and its answer in a sentence
"""

from __future__ import annotations
