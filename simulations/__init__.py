"""Federations on one machine: the main job, reports, benchmarks."""
