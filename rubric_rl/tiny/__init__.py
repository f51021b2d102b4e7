"""The tiny world: patients, rubrics, the rule oracle and the tiny Qwen3 checkpoint (stages 1 and 6 in small)."""
