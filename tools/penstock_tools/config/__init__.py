"""The server's settings, for people: what there is (`reference`), as a JSON Schema, and as a file that names them all."""
