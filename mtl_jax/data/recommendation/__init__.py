"""Recommendation logs and generators, read or made as `ImpressionSet`s."""
