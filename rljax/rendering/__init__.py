"""Rendering: episodes as GIFs and text, classic-control frames, tables of grid worlds."""
