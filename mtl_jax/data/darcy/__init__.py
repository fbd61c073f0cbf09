"""Darcy flow on several geometries."""
