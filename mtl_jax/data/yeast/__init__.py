"""Yeast: functional classes of genes."""
