"""The simulation: all clients in this process, with their images on this machine."""
