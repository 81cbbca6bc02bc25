"""Experiments: plan, train, save, resume and evaluate. `run.train` is the entry point."""
