"""Models as kernels: graphs of known operators become programs of compiled kernels, proven equal to onnxruntime."""
