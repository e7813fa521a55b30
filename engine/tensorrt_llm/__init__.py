"""The engine protocol on TensorRT-LLM 1.4.x: its PyTorch backend through the ``LLM`` API."""
