"""Export of a subnet to a file for another runtime, which is verified before it is kept."""
