"""Make a model smaller: pruning while it trains, int8, packing, and the gates.

`schedule`, `prune`, `pack` and `report` need numpy and zstandard only, so that devices
can import them; `quantize` and `pipeline` need onnx and belong to the coordinator.
"""
