"""Multi-Fashion+MNIST: a digit (task 1, top left) and a garment (task 2, bottom right)."""
