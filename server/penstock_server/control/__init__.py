"""The control plane: the supervisor process, and the socket on which it commands its workers."""
