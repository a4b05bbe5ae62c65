"""The shipped weights, one .safetensors and one card each."""
