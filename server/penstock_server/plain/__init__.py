"""Plain requests: read, batched and answered by compiled kernels, without a Python object for any of them."""
