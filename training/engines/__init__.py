"""Engines turn tasks into updates: the in-process one, and others behind the same protocol."""
