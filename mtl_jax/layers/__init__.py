"""Layers that more than one system uses, fast on the CPU and plain elsewhere."""
