"""Files: written whole or not at all, sealed by digests, and kept in the user's cache folder."""
