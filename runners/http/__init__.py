"""A small HTTP/1.1 client for the load: many streams at once, and the exact moment of everything that comes.

`pool.py` keeps the connections, `connection.py` is one of them, `response.py` an answer as it comes, `target.py` what a
request's first lines say. It does not follow redirects, asks for no compression and knows no proxies.
"""
