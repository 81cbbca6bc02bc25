"""Pure mathematics: no state, no networks, no environments."""
