"""Experiments on plain tables with several targets."""
