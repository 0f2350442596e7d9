"""REST: an HTTP/1.1 port of the worker, whose requests become the gRPC messages of the same methods, and answers JSON."""
