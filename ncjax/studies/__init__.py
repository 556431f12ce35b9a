"""Studies: a story a file. Each is a function `run` with keyword-only arguments; its signature is its config."""
