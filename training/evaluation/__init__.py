"""Evaluation: BatchNorm calibrated for a subnet, and its accuracy on validation images."""
