"""Apps that Flower loads by name, taken from the installed package."""

from fedpareto.training.engines.flower.adapter import client, server

__all__ = ["client", "server"]
