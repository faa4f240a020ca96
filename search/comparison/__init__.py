"""Comparison of training methods and baselines on the same images, clients and compute, over several seeds."""
