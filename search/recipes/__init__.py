"""Ablations of the training recipe: each change to it judged alone and together, on validation images."""
