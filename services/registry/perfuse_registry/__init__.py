"""The Registry: concepts, immutable adapter versions, aliases and base models, per tenant."""
