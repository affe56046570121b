"""What the options of a copy may be: known to the command line without loading what copies."""

METHODS = ("clone", "server", "stream")
# From the least to the most.
VERIFICATIONS = ("none", "sample", "full")
