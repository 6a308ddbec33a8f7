"""The comparison: a pass computed here and by another implementation, quantity by quantity.

One enters by two functions. `batch_norm_pass` (in the module of its name) makes a pass of a layer
and an input's statistics, exactly; `comparison.compare_pass` runs a backend on the same input and
says how close each quantity is, or `compare_channels` in each channel.

    batch_norm_pass   what a pass has, and the same as a backend is asked for it
    comparison        the two sides together; `tolerance` is how far apart they may be, `meter` how
                      far they are, in the words of `closeness`
    budget            where a float32 difference comes from, by `exact` arithmetic
    norms             BatchNorm's relatives, with a `norm_tolerance` of their own
    stepping          running statistics, step by step
    stored_pair       two stored tensors
    identify          which normalisation made an output, which update these running statistics
    departures        what another implementation did otherwise in a pass, in words
    trace             every step of a pass with its formula and numbers
"""
