"""Starts librdkafka's mock cluster of three brokers, as users of librdkafka do in tests (`test.mock.num.brokers`).

Prints its addresses and serves until standard input ends. Then it reads the topic with librdkafka's own consumer and prints
a line `key:value` for each record, and librdkafka's version on standard error.

Usage: mock_cluster.py TOPIC PARTITIONS RECORDS
"""

import sys

from confluent_kafka import Consumer, Producer, TopicPartition, libversion

topic, partitions, wanted = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
# The cluster lives as long as the client that started it. Its addresses are in no public property: the client's own
# metadata names them.
owner = Producer({"test.mock.num.brokers": 3, "bootstrap.servers": "replaced:1", "log_level": 2})
metadata = owner.list_topics(topic=topic, timeout=30)
brokers = ",".join(f"{broker.host}:{broker.port}" for broker in metadata.brokers.values())
print(brokers, flush=True)
sys.stdin.read()

consumer = Consumer({"bootstrap.servers": brokers, "group.id": "reader", "auto.offset.reset": "earliest", "log_level": 2})
consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
seen = 0
while seen < wanted:
    message = consumer.poll(30)
    if message is None:
        break  # The caller notices missing records.
    if message.error():
        raise SystemExit(str(message.error()))
    print(f"{message.key().decode()}:{message.value().decode()}")
    seen += 1
# A duplicate would follow.
late = consumer.poll(2)
if late is not None and not late.error():
    print(f"{late.key().decode()}:{late.value().decode()}")
print("librdkafka", libversion()[0], file=sys.stderr)
