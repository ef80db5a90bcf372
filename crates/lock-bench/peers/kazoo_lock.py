"""The Lock recipe of kazoo."""

from kazoo.client import KazooClient

from load import main


def connect(urls):
    client = KazooClient(hosts=urls[0], timeout=30)
    client.start()
    return lambda name: client.Lock("/kazoo/" + name)


main(connect)
