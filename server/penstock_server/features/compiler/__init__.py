"""From a specification to the program that the kernels read: registers, instructions, and how they lie in memory."""
