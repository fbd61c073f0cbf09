"""RF1: flows of a river in 48 hours."""
