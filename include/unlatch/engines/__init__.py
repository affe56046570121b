"""Database products, one file each: its `PLUGIN` implements `ports.Engine`. Files with `_` are shared parts."""
