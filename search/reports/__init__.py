"""Reports of a search for people: on the terminal, as a plot and as a page."""
