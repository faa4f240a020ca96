"""Utilities that all packages share: errors, optional packages, the command line, files, the terminal."""
