"""Makes what an engine loads: GGUF files from Hugging Face checkpoints, tokenizers from GGUF files, engine bundles.

It knows checkpoints and file formats. It leaves running an engine to ``engine`` and choosing one to ``launcher``.
"""
