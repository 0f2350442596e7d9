"""A gRPC load generator that costs little: HTTP/2 frames built once, one thread, no gRPC library.

`frames` and `headers` build and read bytes, with what the client has for that; `connection` and `http1` are the
protocols, without I/O. `arrivals` decides when to send, `generator` has the sockets and the clock, and `process` runs it
in a process of its own. `plan` holds a run's settings and its result.
"""
