"""The client for threads. Written from `perfuse.client._async` by `make client`; edit that."""
