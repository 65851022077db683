"""Training and judging of models: an application beside the node, that never imports it."""
