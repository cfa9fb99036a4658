"""Corpora of any size as documents of bytes, token shards, batches."""
