"""Benchmarks: the library beside the authors' way, in turn, in one process."""
