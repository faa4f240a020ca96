"""Extraction: the subnet that was found is cut out of a trained supernet, calibrated and delivered."""
