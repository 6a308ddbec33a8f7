"""How renderers draw: cells, charts, pictures."""
