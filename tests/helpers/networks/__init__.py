"""Spaces, networks and costs for tests."""
