"""Reports of a search: on the terminal, as a plot and as a page."""
