"""Extraction: the subnet that was found is taken out of a trained run, calibrated and delivered."""
