"""Loops that numba compiles: Shapley values of trees. Plain arrays in, plain arrays out; each call holds no lock of Python's."""
