"""Which normalisation made an output from an input; which convention updated running statistics.

hypotheses   the ways in which an output may have been made, as data
norm_ways    the same for the norms that keep samples apart
parts        statistics of a part of the batch, or put together from parts
pair         the two tensors, read block by block, and measured against a map
search       hypotheses ranked by what they leave unexplained
views        axes, orders and roundings in which the tensors may have to be seen
family       the norms that keep samples apart, measured
implied      the scale, mean and variance that the output itself shows in each channel
activation   outputs that were taken after a ReLU
halves       what one rounding to half precision leaves, and the eps that it allows
nonfinite    NaN and Inf in the output alone
doubt        what else explains an output, and what data would decide
output       the search over all of them, and its answer in a sentence
said         an answer in words: the claim, the contrast and the doubt
fixes        what to change where another way was expected
updates      the ways to update running statistics, as data
running      the convention that updated running statistics, and its answer
"""

from __future__ import annotations
