"""The causal transformer, its quantised layers, tokenizer training, conversion to integers."""
