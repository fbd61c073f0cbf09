"""Census-Income (KDD): income and marital status."""
