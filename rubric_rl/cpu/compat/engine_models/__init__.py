"""The models that SGLang has to import (SGLANG_EXTERNAL_MODEL_PACKAGE); all 200 cost seconds."""
