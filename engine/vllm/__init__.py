"""The core for NVIDIA GPUs on vLLM's asynchronous engine; its CPU build serves the tests."""
