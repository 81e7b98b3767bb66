import os

from scorer import Request, accept

print(accept(Request(amount=1000, income=3000), os.environ.get("MARKET", "eu")))
