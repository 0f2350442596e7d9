"""Attributions: how much each raw column of a row has moved the model's answer, as Shapley values."""
