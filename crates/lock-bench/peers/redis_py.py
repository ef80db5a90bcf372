"""The Lock of redis-py."""

import redis

from load import main


def connect(urls):
    client = redis.Redis.from_url(urls[0])
    client.ping()
    return lambda name: client.lock("redis-py/" + name, timeout=30)


main(connect)
