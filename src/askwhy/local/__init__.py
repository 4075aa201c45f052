"""Why do you think this is a cat? Explanations of single answers."""
