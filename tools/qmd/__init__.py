"""What becomes of a post in a notebook, step by step: source, parts, numbers, references, markdown, cells."""
