"""The kernels of plain requests."""
