"""The context that a model is sent of a conversation."""
