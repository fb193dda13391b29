"""The program of a device: local training, evaluation, updates."""
