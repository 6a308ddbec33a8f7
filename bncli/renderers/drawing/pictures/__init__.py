"""How pictures are drawn, by matplotlib: onto a page as SVG, and into files as .png or .svg."""
