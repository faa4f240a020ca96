"""A run on disk: its folder, checkpoints and the state that goes on from round to round."""
