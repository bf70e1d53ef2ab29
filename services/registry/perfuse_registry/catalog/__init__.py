"""The Registry's rules, one module for each kind of resource; they know nothing of gRPC."""
