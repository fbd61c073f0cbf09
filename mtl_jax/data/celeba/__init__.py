"""CelebA: 40 binary attributes of faces."""
