"""A model, run with its BatchNorm layers watched: the only room that runs a user's own code.

`model_source` and `data_source` import and open what the user names, and `weights` puts a
checkpoint into the model. `parts` finds the tensors of a checkpoint that belong to a model's,
`fingerprints` says whose weights they are, and `targets` which are those of the layers in a
statistics file; these three need no model. All that is the user's own runs in `users_code`, and its
errors are `told` in one sentence. `layers` finds the BatchNorm layers, `passes` runs the model over
batches in a propagation and leaves everything as it was, `session` keeps what several passes need,
and `trials` tries repairs on it. `recalibration` finds new running statistics and
measures what they do, also by the user's `metric`, of which `wrong_pairs` finds out which way is
better. torch is imported where it is needed.
"""
