"""Servers to measure against, each written as its own documentation recommends."""
