"""The page of a search: one self-contained HTML file that shows the architecture found."""
