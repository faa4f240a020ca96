"""Runs, federations and studies for tests."""
