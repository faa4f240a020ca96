"""Results of studies: outcomes of runs, tables over seeds, which of them may be compared, plots."""
