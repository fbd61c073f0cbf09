"""QM9: eleven properties of small molecules."""
