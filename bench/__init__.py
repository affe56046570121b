"""How fast the agent is beside the tools that an administrator would use; see docs/bench.md."""
