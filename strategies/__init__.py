"""Federated algorithms: one pure file each, named after the algorithm."""
