"""Optimizers, one paper a file."""
