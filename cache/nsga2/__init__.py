"""The evolutionary solver: NSGA-II (pymoo) over gene vectors, within limits on costs."""
