"""Damaged conversations against the native transport: it must live, give everything back, and serve others meanwhile.

`python -m bench.fuzz` changes valid conversations, frames and messages, and plays them in process as fast as it goes, then
over sockets. What ends the server is written down as a line of hexadecimal digits, for the corpus of the tests.

Memory is looked at byte by byte when `bench.fuzz.play` runs under valgrind, with PYTHONMALLOC=malloc and the kernels of a
release: those of `penstock compile --baseline`, and an empty PENSTOCK_CACHE_DIR, since valgrind does not know AVX-512.
"""
