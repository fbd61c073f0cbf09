"""MT-DeepONet: operator learning on families of problems."""
