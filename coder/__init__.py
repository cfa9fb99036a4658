"""Frozen checkpoints, engines, entropy coding, the container and the codec: no torch needed."""
