"""The run without a GPU: SGLang on the CPU, Megatron-core actors, trainer (stages 2 to 6)."""
