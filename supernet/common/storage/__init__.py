"""Storage of files: atomic writes, digests against damage, and the user's cache folder."""
