"""Queries: a device's budgets are read and answered with the architecture of highest fitness within them."""
