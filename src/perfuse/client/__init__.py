"""The typed client of Perfuse's services."""

from perfuse.client.faults import from_rpc_error

__all__ = ["from_rpc_error"]
