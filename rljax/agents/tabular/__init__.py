"""Tabular agents: control with action values, prediction of state values, and planning."""
