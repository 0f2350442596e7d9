"""The kernels that run a model's program; only their compiler imports them."""
