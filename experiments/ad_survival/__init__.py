"""Lifetimes of ad creatives, and of anything else: short and long terms, many kinds of input."""
