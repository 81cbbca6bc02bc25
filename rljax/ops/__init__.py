"""Pure functions of arrays: no state, no networks, no environments."""
