"""Names the one model class SGLang has to import (SGLANG_EXTERNAL_MODEL_PACKAGE): all 200 cost ten seconds a start (stage 2, rollout)."""
