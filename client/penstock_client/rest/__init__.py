"""REST, for where gRPC does not pass: the client's calls as requests of HTTP/1.1, with the same answers and errors.

`messages` says what each gRPC message is in REST, and back, without I/O; `calls` sends. Sessions know nothing of it.
"""
