"""A gRPC load generator that costs little: HTTP/2 frames built once, one thread, no gRPC library.

`frames` and `headers` know bytes, `connection` the protocol without I/O, `pace` when to send, `generator` sockets and
time, `process` how to run it beside the servers. `plan` holds what goes in and what comes out.
"""
