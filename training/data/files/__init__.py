"""Pictures in files: found in folders, decoded once, and kept as pixels."""
