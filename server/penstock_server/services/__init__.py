"""The gRPC services: what each method takes and gives; transports carry them."""
