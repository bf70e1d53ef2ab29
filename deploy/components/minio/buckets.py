"""Makes the buckets that are named as arguments, where they are missing."""

import os
import sys
from urllib.parse import urlsplit

from minio import Minio

endpoint = urlsplit(os.environ["S3_ENDPOINT"])
client = Minio(
    endpoint.netloc,
    access_key=os.environ["S3_ACCESS_KEY"],
    secret_key=os.environ["S3_SECRET_KEY"],
    secure=endpoint.scheme == "https",
)
for bucket in sys.argv[1:]:
    there = client.bucket_exists(bucket)
    if not there:
        client.make_bucket(bucket)
    print(bucket, "was there" if there else "made")
