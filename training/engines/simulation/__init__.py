"""Simulation of a federation: all clients run in this process, with their images on this machine."""
