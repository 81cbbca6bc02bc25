"""Experiments: plan, run, save, resume and evaluate. `run.train` is the entry point."""
