"""The demo checkpoints: very small Gemma 4 models, their training data, their training and their evaluation.

Nothing here is needed to serve; the server treats these checkpoints like any other Gemma 4.
"""
