"""What pictures cost: device-seconds, and their price where one is given."""

from __future__ import annotations


def per_thousand(device_seconds: float, pictures: int, price_per_hour: float) -> float:
    """Price of a thousand pictures.

    Args:
        device_seconds: paid for, busy or not.
        pictures: that callers got.
        price_per_hour: of one device.
    """
    return 1000.0 * device_seconds * price_per_hour / 3600.0 / pictures if pictures else 0.0
