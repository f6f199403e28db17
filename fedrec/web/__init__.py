"""What the pages of coordinator and partner load alike; see `static/THIRD-PARTY.txt`."""
