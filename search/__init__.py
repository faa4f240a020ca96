"""Search for the architecture of highest fitness under limits on its costs, and delivery of the trained subnet."""
