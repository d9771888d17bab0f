"""What becomes of a post in a notebook, step by step: source, numbers, references, markdown, cells."""
