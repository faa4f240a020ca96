"""Pictures in files: they are found in folders, decoded once, and stored as pixels for the next command."""
