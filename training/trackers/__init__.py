"""Trackers: they record or show a run's events behind one small protocol: ``metrics.jsonl``, the terminal, wandb."""
