"""Watch the engine compute: what goes into each weight tensor, and every logit that comes out."""
