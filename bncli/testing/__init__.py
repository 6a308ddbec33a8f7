"""A judge for implementations of BatchNorm, to be used in their own tests."""
