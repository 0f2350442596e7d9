"""The compiled kernels of the REST port."""
