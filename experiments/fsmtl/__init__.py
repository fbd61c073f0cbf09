"""FS-MTL: flat regions around multi-task gradients, on images."""
