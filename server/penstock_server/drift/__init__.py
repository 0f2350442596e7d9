"""Drift: how far what is served lies from what was trained on, how sure that is, and since when."""
