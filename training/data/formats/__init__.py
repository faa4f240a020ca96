"""Formats that images come in: tables, client folders, LEAF, Hugging Face datasets, tars, arrays in one file."""
