"""Keras' files: which variables are a layer's, and what the config says of it."""
