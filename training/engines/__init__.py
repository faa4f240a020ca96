"""Engines: they have clients carry out the server's tasks, in this process or over a network."""
