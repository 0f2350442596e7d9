"""The peers' servers: one module each, run in that peer's own environment, so each may import its peer and `shared` alone.

All are told the same: a model's file and name, a port, and the settings that `peers.toml` holds and gives reasons for.
Each prints its address when it begins to start; the first right answer says that it is ready.
"""
