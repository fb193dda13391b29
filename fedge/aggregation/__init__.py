"""Sums of updates: exact, order-free, and what strategies are given."""

from fedge.aggregation.exact import ExactSum
from fedge.aggregation.totals import UpdateMatrix, WeightedSum

__all__ = ["ExactSum", "UpdateMatrix", "WeightedSum"]
