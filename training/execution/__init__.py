"""Execution of local training: its device, its precision and its memory."""
