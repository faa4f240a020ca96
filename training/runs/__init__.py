"""Runs on disk: the folder of a run, its checkpoints, and the state that it carries from round to round."""
