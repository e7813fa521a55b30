"""The llama.cpp core: a continuous batcher over the C interface of the prebuilt xllamacpp wheel."""
