"""Log formats of hypervisors: one module, one format. Each has a `PLUGIN` with a name and a line parser."""
