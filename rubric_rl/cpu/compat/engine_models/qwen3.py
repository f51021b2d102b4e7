"""SGLang's own Qwen3 under the name that its model registry looks for."""

import cpu_attention  # noqa: F401  every engine imports its model
import seeded_sampling  # noqa: F401
from sglang.srt.models.qwen3 import Qwen3ForCausalLM as EntryClass  # noqa: F401
