"""The loops over rows, which numba compiles once per machine; only `kernels.build` imports them."""
