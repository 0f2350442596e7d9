"""The programs that serve a model with another model server, one module per server.

Each runs in the environment of its own server, so it imports only that server, `command_line`, `onnx_session` and the contract.
All take the same arguments: a model's name and file, a port, and the settings from `peers.toml`. Each prints its address
when it begins to start; the bench then waits for its first right answer.
"""
