"""The heated plate: steady heat conduction in 64 designs of a bored disc."""
