"""Drift: how much the rows served differ from the training rows, how significant that is, and since when."""
