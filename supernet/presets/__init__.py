"""Preset search spaces that come with the package, as YAML files of ``SearchSpace`` fields."""
