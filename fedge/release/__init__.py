"""Signing a model, and a device's decision to accept, test and switch to it."""
