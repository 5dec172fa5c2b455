"""The part of a conversation that a model call sends."""
