"""Scores whole tables with a registered version: `penstock batch`."""
