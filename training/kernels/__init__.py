"""Kernels for training on CPUs: convolutions with their norm and activation, compiled by numba."""
