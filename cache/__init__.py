"""The Pareto cache: architectures of the highest fitness for their MACs, with solvers and a file format.

Federated training draws subnets from it, and searches start from it.
"""
