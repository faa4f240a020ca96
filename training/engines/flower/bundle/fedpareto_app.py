"""What Flower loads by name; all of it is the installed package's."""

from fedpareto.training.engines.flower.adapter import client, server

__all__ = ["client", "server"]
