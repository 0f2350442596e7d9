"""The loops over rows, compiled by numba once a machine; only `features.build` imports them."""
