"""What several commands take from the command line: flags, inputs, layers, completion."""
