"""The command line. Importing it imports no JAX, so `--help` and errors appear at once."""
