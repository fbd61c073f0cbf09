"""Reaction and diffusion on a line: three families of source terms."""
