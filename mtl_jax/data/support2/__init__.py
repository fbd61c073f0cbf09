"""Seriously ill patients until death."""
