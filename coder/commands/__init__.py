"""The codec's commands, one module each."""
