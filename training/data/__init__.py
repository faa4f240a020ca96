"""Data of a run: where images come from, how they are split and partitioned over the clients, and batches of them."""
