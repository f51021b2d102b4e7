"""SGLang's server with `--enable-deterministic-inference` on a CPU; engine processes only.

SGLang refuses the flag with the one attention backend that it has here. Its other half, kernels
whose result does not depend on the batch, is Triton's and needs a GPU: here a request's seed fixes
what is sampled up to the rounding of float32.
"""

import runpy

from sglang.srt.arg_groups import choices

BACKEND = ["torch_native"]

# Spawned processes import this module too, and get what the first one has decided.
if __name__ == "__main__":
    choices.add_deterministic_attention_backend_choices(BACKEND)
    choices.add_radix_supported_deterministic_attention_backend_choices(BACKEND)
    runpy.run_module("sglang.launch_server", run_name="__main__")
