"""Traces functions of rows: each is called once with tracers that record what it does, and proven equal to its record."""
