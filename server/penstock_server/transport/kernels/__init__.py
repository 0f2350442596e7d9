"""The native transport's kernels: nghttp2's callbacks, and what a turn of the reactor does with sockets."""
