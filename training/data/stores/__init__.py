"""Stores of images that need not fit into memory: pixels on the disk, and files that are decoded batch by batch."""
