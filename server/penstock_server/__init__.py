"""The Penstock server: versioned ONNX models over gRPC, followed from a registry, routed, batched and watched."""
