"""Readers of text from outside: YAML, JSON and numbers with units become typed values or one-line errors."""
