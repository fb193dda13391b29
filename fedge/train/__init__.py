"""What a device does with a model and its own examples: train and evaluate."""
