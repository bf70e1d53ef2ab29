"""Makes the buckets that are named as arguments, where they are missing."""

import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

from minio import Minio


def secret(name: str) -> str:
    """Of the environment, or of the file that it names."""
    file = os.environ.get(f"{name}_FILE")
    return Path(file).read_text().strip() if file else os.environ[name]


endpoint = urlsplit(os.environ["S3_ENDPOINT"])
client = Minio(
    endpoint.netloc,
    access_key=secret("S3_ACCESS_KEY"),
    secret_key=secret("S3_SECRET_KEY"),
    secure=endpoint.scheme == "https",
)
for bucket in sys.argv[1:]:
    there = client.bucket_exists(bucket)
    if not there:
        client.make_bucket(bucket)
    print(bucket, "was there" if there else "made")
