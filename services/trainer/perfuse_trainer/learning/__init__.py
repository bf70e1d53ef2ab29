"""The training itself: no SQL, no gRPC, no service."""
