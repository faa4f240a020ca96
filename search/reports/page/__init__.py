"""The page of a search: one HTML file that shows what was found, and needs nothing else."""
