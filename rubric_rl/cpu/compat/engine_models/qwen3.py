"""SGLang's own Qwen3 under the name its model registry looks for (stage 2, rollout)."""

from sglang.srt.models.qwen3 import Qwen3ForCausalLM as EntryClass  # noqa: F401
