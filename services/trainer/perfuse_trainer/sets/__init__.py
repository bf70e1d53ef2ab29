"""Image sets: what a tenant uploads, and when it goes."""
