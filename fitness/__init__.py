"""Analytic fitness of an architecture, which needs no training, and its costs. numpy only."""
