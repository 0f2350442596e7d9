"""The loops over rows, which numba compiles once per machine; only `features.build` imports them."""
