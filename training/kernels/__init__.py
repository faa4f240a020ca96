"""Kernels for CPUs: convolutions by channel, norm and activation, compiled by numba."""
