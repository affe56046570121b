"""Programs that run inside the lab's machines, with the system's Python and nothing else."""
