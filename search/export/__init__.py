"""Export of a subnet to a file another runtime runs, verified before it is kept."""
