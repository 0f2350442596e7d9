"""The control plane: the supervisor, its workers' processes, and what it shows of the server."""
