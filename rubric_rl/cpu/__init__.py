"""The run without a GPU: SGLang engines on the CPU, Megatron-core actor, trainer (stages 2 to 6)."""
