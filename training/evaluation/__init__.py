"""Evaluation of subnets: their BatchNorm is calibrated, then their accuracy is measured on validation images."""
