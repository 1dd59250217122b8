"""Text of any kind -> token ids of a model: words for numbers, phonemes, symbols, sentences; without tensors."""
