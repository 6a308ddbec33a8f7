"""TensorFlow's checkpoints and graphs, written here from the formats' documentation."""
