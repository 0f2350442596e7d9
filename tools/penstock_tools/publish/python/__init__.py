"""Publishes whole pipelines that cannot be compiled, for servers that run them in Python."""
