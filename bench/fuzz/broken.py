"""What the fuzzer raises."""


class BrokenError(Exception):
    """Something that must hold after every case does not."""
