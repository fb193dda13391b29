"""Reference models, and a model's values as one flat vector."""
