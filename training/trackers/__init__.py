"""Trackers record a run behind one small protocol: ``metrics.jsonl``, the terminal, wandb."""
