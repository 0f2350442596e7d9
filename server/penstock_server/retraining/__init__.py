"""Retraining: rules over a model's accuracy, drift, age and traffic, and the actions that have it trained anew."""
