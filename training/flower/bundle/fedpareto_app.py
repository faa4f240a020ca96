"""What Flower loads by name; all of it is the installed package's."""

from fedpareto.training.flower.adapter import client, server

__all__ = ["client", "server"]
