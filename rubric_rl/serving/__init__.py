"""How a served model is asked: the policy that answers, and whoever grades (stages 2 and 3)."""
