"""What the product's own layers cost and whether its promises hold under load, each measured against a peer.

Every module runs by itself: ``python -m benchmarks.NAME``. ``docs/benchmarks.md`` explains them and holds one run's
figures. Nothing here is part of the product, and no test depends on a figure.
"""
