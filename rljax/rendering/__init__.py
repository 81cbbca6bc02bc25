"""Rendering: episodes as GIFs and text, frames of control tasks, tables of grid worlds."""
