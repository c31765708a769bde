"""Reads every partition of a topic from the beginning and prints a JSON line for each record.

Arguments: topic, number of partitions, number of records to wait for.
"""

import base64
import json
import os
import sys
import time

from kafka import KafkaConsumer, TopicPartition


def encoded(value):
    return None if value is None else base64.b64encode(value).decode()


def main():
    topic, partitions, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    consumer = KafkaConsumer(bootstrap_servers=os.environ["BOOTSTRAP"], check_crcs=True, fetch_max_wait_ms=50)
    consumer.assign([TopicPartition(topic, p) for p in range(partitions)])
    consumer.seek_to_beginning()
    read = 0
    deadline = time.monotonic() + 20
    while read < count and time.monotonic() < deadline:
        for batch in consumer.poll(timeout_ms=200, max_records=5_000).values():
            for record in batch:
                read += 1
                line = {
                    "partition": record.partition,
                    "offset": record.offset,
                    "timestamp": record.timestamp,
                    "key": encoded(record.key),
                    "value": encoded(record.value),
                    "headers": [[name, encoded(value)] for name, value in record.headers],
                }
                print(json.dumps(line))
    consumer.close()


main()
