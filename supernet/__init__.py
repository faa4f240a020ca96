"""What can be built: search spaces, architectures, the layer table, networks and slices.

``space``, ``architecture``, ``genes``, ``layers`` and ``slices`` use numpy only; ``network`` and
``weights`` need torch and are imported by name where networks are wanted.
"""
