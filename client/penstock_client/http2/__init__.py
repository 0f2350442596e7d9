"""HTTP/2 for one purpose: unary gRPC calls to one server, over sockets of the client's own.

grpcio takes about 180 us of the caller's CPU per call, whatever the call holds; this takes about 30. It speaks no more than
that needs, and whatever needs more (proxies, client certificates, channel options, name resolvers) stays with grpcio.
"""
