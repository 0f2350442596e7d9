"""Kernels: how functions that numba compiles are built, kept and loaded; nothing that serves imports numba."""
