"""From a specification to the program that the kernels read."""
