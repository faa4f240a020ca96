"""Text that comes from outside: YAML, JSON and numbers with units, read into typed values."""
