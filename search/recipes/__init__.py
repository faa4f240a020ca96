"""Ablation of the training recipe: each change to it is judged alone and together, on validation images."""
