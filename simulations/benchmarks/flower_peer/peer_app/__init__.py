"""A ServerApp and a ClientApp of Flower's Message API; nothing of fedge is in here."""
