"""SGLang's own Llama, so that small pretrained models can be served as policy and grader."""

import cpu_attention  # noqa: F401  every engine imports its model
import seeded_sampling  # noqa: F401
from sglang.srt.models.llama import LlamaForCausalLM as EntryClass  # noqa: F401
