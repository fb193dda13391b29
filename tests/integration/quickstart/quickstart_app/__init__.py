"""A Flower app in the shape of Flower's PyTorch quickstart, made secure."""
