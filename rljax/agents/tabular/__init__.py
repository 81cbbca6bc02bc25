"""Algorithms that keep a table, one row a state: of control by action values, and of prediction."""
