"""A client that knows nothing but the protocol files: publishes, consumes, settles, reads, and
understands what it is refused. Prints "all good" at the end; any failure is an exception.

Usage: client.py HOST:PORT, with the generated stubs on the path.
"""

import queue
import sys

import grpc
from grpc_status import rpc_status

from millrace.v1 import admin_pb2, admin_pb2_grpc
from millrace.v1 import consumer_pb2, consumer_pb2_grpc
from millrace.v1 import error_pb2
from millrace.v1 import message_pb2
from millrace.v1 import publisher_pb2, publisher_pb2_grpc
from millrace.v1 import stream_pb2, stream_pb2_grpc

QUEUE = "queue/default/orders"
TOPIC = "topic/default/events"
SECONDS = 30


def message(payload, subject=""):
    header = message_pb2.Header(name="lang", text="python")
    return message_pb2.Message(payload=payload, subject=subject, headers=[header])


def publish(channel):
    """A single call: one result for each message."""
    publisher = publisher_pb2_grpc.PublisherStub(channel)
    request = publisher_pb2.PublishRequest(
        address=TOPIC, messages=[message(b"one", "orders.one"), message(b"two", "other")]
    )
    results = publisher.Publish(request, timeout=SECONDS).results
    assert len(results) == 2, results
    for result in results:
        assert result.WhichOneof("outcome") == "acknowledged", result
        assert result.acknowledged.durability == error_pb2.MAJORITY_SYNCED, result


def publish_stream(channel):
    """Pipelined: a frame within the credit, a decision for it."""
    publisher = publisher_pb2_grpc.PublisherStub(channel)
    frames = queue.Queue()
    replies = publisher.PublishStream(iter(frames.get, None), timeout=SECONDS)
    first = next(replies)
    assert first.WhichOneof("reply") == "credit" and first.credit.messages > 0, first
    frames.put(
        publisher_pb2.PublishFrame(sequence=1, address=QUEUE, messages=[message(b"three")])
    )
    for reply in replies:
        if reply.WhichOneof("reply") == "decision":
            assert reply.decision.sequence == 1, reply
            assert reply.decision.results[0].HasField("acknowledged"), reply
            break
    frames.put(None)


def consume(channel):
    """A session: credit, deliveries, a settlement and its answer, an orderly end."""
    consumer = consumer_pb2_grpc.ConsumerStub(channel)
    frames = queue.Queue()
    replies = consumer.Consume(iter(frames.get, None), timeout=SECONDS)
    credit = consumer_pb2.ConsumeCredit(messages=10, bytes=1 << 20)
    opened = consumer_pb2.ConsumeOpen(address=QUEUE, consumer="python", credit=credit)
    frames.put(consumer_pb2.ConsumeFrame(open=opened))
    taken, settled, sequence = [], 0, 0
    for reply in replies:
        kind = reply.WhichOneof("reply")
        if kind == "deliveries":
            for delivery in reply.deliveries.deliveries:
                taken.append(delivery.message.payload)
                assert delivery.message.headers[0].text == "python", delivery
                sequence += 1
                settlement = consumer_pb2.Settlement(
                    tags=[delivery.tag], outcome=consumer_pb2.Settlement.ACCEPT
                )
                batch = consumer_pb2.SettleBatch(sequence=sequence, settlements=[settlement])
                frames.put(consumer_pb2.ConsumeFrame(settle=batch))
        elif kind == "results":
            assert not reply.results.refused, reply
            settled += 1
            if settled == 2:
                frames.put(consumer_pb2.ConsumeFrame(close=consumer_pb2.ConsumeClose()))
                frames.put(None)
        elif kind == "ping":
            frames.put(consumer_pb2.ConsumeFrame(pong=consumer_pb2.Pong()))
    assert sorted(taken) == [b"one", b"three"], taken


def read(channel):
    """The topic still has everything."""
    reader = stream_pb2_grpc.StreamReaderStub(channel)
    found = []
    for partition in range(2):
        start = stream_pb2.Position(earliest=stream_pb2.Position.Earliest())
        request = stream_pb2.ReadRequest(address=TOPIC, partition=partition)
        getattr(request, "from").CopyFrom(start)
        found += [m.message.payload for m in reader.Read(request, timeout=SECONDS).messages]
    assert sorted(found) == [b"one", b"two"], found


def receive_and_settle(channel):
    """Without a session; a tag is good once."""
    publisher = publisher_pb2_grpc.PublisherStub(channel)
    request = publisher_pb2.PublishRequest(address=QUEUE, messages=[message(b"four")])
    publisher.Publish(request, timeout=SECONDS)
    consumer = consumer_pb2_grpc.ConsumerStub(channel)
    request = consumer_pb2.ReceiveRequest(address=QUEUE, messages_max=1)
    request.wait.FromSeconds(10)
    (delivery,) = consumer.Receive(request, timeout=SECONDS).deliveries
    settlement = consumer_pb2.Settlement(
        tags=[delivery.tag], outcome=consumer_pb2.Settlement.ACCEPT
    )
    request = consumer_pb2.SettleRequest(address=QUEUE, settlements=[settlement])
    answer = consumer.Settle(request, timeout=SECONDS)
    assert answer.settled == 1 and not answer.refused, answer
    answer = consumer.Settle(request, timeout=SECONDS)
    assert answer.settled == 0, answer
    assert answer.refused[0].error.reason == "STALE_DELIVERY", answer


def refusal(channel):
    """A failed call has one detail, of our own type, in the standard place."""
    admin = admin_pb2_grpc.AdminStub(channel)
    try:
        admin.Describe(admin_pb2.DescribeRequest(address="queue/default/nowhere"), timeout=SECONDS)
    except grpc.RpcError as failure:
        assert failure.code() == grpc.StatusCode.NOT_FOUND, failure
        (detail,) = rpc_status.from_call(failure).details
        error = error_pb2.Error()
        assert detail.Unpack(error), detail
        assert error.reason == "NO_SUCH_QUEUE", error
        assert error.applied == error_pb2.NOT_APPLIED, error
        assert "queue/default/nowhere" in error.message, error
        return
    raise AssertionError("a queue that does not exist was described")


def main():
    with grpc.insecure_channel(sys.argv[1]) as channel:
        for step in (publish, publish_stream, consume, read, receive_and_settle, refusal):
            step(channel)
            print(step.__name__, "works")
    print("all good")


main()
