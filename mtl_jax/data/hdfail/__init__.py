"""Hard drives until failure."""
