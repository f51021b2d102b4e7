"""SGLang's own Qwen3 under the name that its model registry looks for."""

from sglang.srt.models.qwen3 import Qwen3ForCausalLM as EntryClass  # noqa: F401
