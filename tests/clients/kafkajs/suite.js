// kafkajs: producer, consumer groups and admin. What it produced is read back by reader.py.
'use strict';

const { execFile } = require('node:child_process');
const path = require('node:path');
const { promisify } = require('node:util');
const { CompressionCodecs, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = require('kafkajs');
const Lz4Codec = require('kafkajs-lz4');
const SnappyCodec = require('kafkajs-snappy');

CompressionCodecs[CompressionTypes.Snappy] = SnappyCodec;
CompressionCodecs[CompressionTypes.LZ4] = new Lz4Codec().codec;

const BOOTSTRAP = process.env.BOOTSTRAP;
// Of topics, unless a check is about that.
const REPLICAS = Number(process.env.REPLICAS ?? 1);
const CHECK_MS = 30_000;
const RUN = `kafkajs-${Date.now().toString(36)}-${process.pid.toString(36)}`;
const CODECS = {
  none: CompressionTypes.None,
  gzip: CompressionTypes.GZIP,
  snappy: CompressionTypes.Snappy,
  lz4: CompressionTypes.LZ4,
};

const kafka = new Kafka({
  clientId: 'kafkajs-suite',
  brokers: [BOOTSTRAP],
  logLevel: logLevel.NOTHING,
  retry: { initialRetryTime: 50, retries: 5 },
});
const admin = kafka.admin();

// Checks

const only = new RegExp(process.env.CHECKS ?? '');
let passed = 0;
let failed = 0;

async function check(name, body) {
  if (!only.test(name)) return;
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done after ${CHECK_MS} ms`)), CHECK_MS);
  });
  try {
    await Promise.race([body(), deadline]);
    passed += 1;
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    const place = /suite\.js:\d+/.exec((error.stack ?? '').split('\n').slice(2).join('\n'))?.[0] ?? '';
    console.log(`FAIL ${name} ${String(error).replaceAll('\n', ' ')} ${place}`);
  } finally {
    clearTimeout(timer);
  }
}

function equal(expected, actual, what) {
  const [want, got] = [JSON.stringify(expected), JSON.stringify(actual)];
  if (want !== got) throw new Error(`${what}: expected ${want.slice(0, 300)}, got ${String(got).slice(0, 300)}`);
}

function that(condition, what) {
  if (!condition) throw new Error(what);
}

async function fails(type, call) {
  let result;
  try {
    result = await call();
  } catch (error) {
    const partitions = error.partitions ?? error.cause?.partitions ?? [];
    const causes = [error, error.cause, ...(error.errors ?? []), ...partitions.map((one) => one.error)];
    const types = causes.map((one) => one?.type).filter(Boolean);
    that(types.includes(type), `expected ${type}, got ${types} (${error})`);
    return;
  }
  throw new Error(`expected ${type}, got the result ${JSON.stringify(result)}`);
}

async function eventually(what, condition) {
  const deadline = Date.now() + 15_000;
  while (!(await condition())) {
    that(Date.now() < deadline, `never happened: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// Topics and records

const name = (what) => `${RUN}-${what}`;

async function topic(what, partitions, configs = {}) {
  const configEntries = Object.entries(configs).map(([key, value]) => ({ name: key, value }));
  await admin.createTopics({
    topics: [{ topic: name(what), numPartitions: partitions, replicationFactor: REPLICAS, configEntries }],
  });
  // Kafka acknowledges a topic a moment before its leaders serve; the client retries what they answer until then.
  await admin.fetchTopicOffsets(name(what));
  return name(what);
}

// A small generator with a fixed seed: the same records in every run.
function payloads(seed) {
  let state = seed;
  return (size) => {
    const bytes = Buffer.alloc(size, size % 256);
    for (let i = size >> 1; i < size; i += 1) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      bytes[i] = state >>> 24;
    }
    return bytes;
  };
}

function records(partitions, count, sizeMax) {
  const payload = payloads(count * 31 + sizeMax);
  const start = Date.now();
  return Array.from({ length: count }, (_, i) => ({
    partition: i % partitions,
    key: payload(i % 20),
    value: payload((i * 7919) % sizeMax),
    headers: i % 3 === 0 ? { [`h${i}`]: payload(i % 30) } : {},
    timestamp: String(start + Math.floor(i / 100)),
  }));
}

async function send(topicName, messages, { compression, acks = -1, ...settings } = {}) {
  const producer = kafka.producer({ maxInFlightRequests: 5, ...settings });
  await producer.connect();
  try {
    return await producer.send({ topic: topicName, messages, compression, acks });
  } finally {
    await producer.disconnect();
  }
}

async function sameIsRead(topicName, partitions, sent) {
  const { stdout } = await promisify(execFile)(
    process.env.READER_PYTHON,
    [path.join(__dirname, 'reader.py'), topicName, String(partitions), String(sent.length)],
    { maxBuffer: 1 << 27 },
  );
  const lines = stdout.split('\n').filter(Boolean);
  equal(sent.length, lines.length, 'records read');
  const expected = Array.from({ length: partitions }, () => []);
  for (const message of sent) expected[message.partition].push(message);
  const next = new Array(partitions).fill(0);
  const encoded = (value) => (value === null ? null : Buffer.from(value).toString('base64'));
  for (const line of lines) {
    const got = JSON.parse(line);
    const index = next[got.partition]++;
    const want = expected[got.partition][index];
    const where = `${got.partition}@${got.offset}`;
    equal(index, got.offset, `offset in partition ${got.partition}`);
    equal(encoded(want.key), got.key, `key at ${where}`);
    equal(encoded(want.value), got.value, `value at ${where}`);
    const headers = Object.entries(want.headers ?? {}).map(([key, value]) => [key, encoded(value)]);
    equal(headers, got.headers, `headers at ${where}`);
    if (want.timestamp) equal(Number(want.timestamp), got.timestamp, `timestamp at ${where}`);
  }
}

// Admin

async function clusterIsDescribed() {
  const cluster = await admin.describeCluster();
  that(cluster.clusterId, 'cluster id');
  const port = Number(BOOTSTRAP.split(':').pop());
  that(cluster.brokers.some((broker) => broker.port === port), 'own port among the brokers');
  that(cluster.brokers.some((broker) => broker.nodeId === cluster.controller), 'controller is a node');
}

async function topicIsCreatedListedAndDescribed() {
  const topicName = await topic('create', 6, { 'retention.ms': '3600000' });
  that((await admin.listTopics()).includes(topicName), 'topic is listed');
  const { topics } = await admin.fetchTopicMetadata({ topics: [topicName] });
  const partitions = topics[0].partitions.map((partition) => partition.partitionId).sort();
  equal([0, 1, 2, 3, 4, 5], partitions, 'partitions');
  that(topics[0].partitions.every((partition) => partition.leader >= 0 && partition.isr.length === REPLICAS), 'leaders');
}

async function wrongTopicsAreRefused() {
  const topicName = await topic('exists', 2);
  equal(false, await admin.createTopics({ topics: [{ topic: topicName }] }), 'creating an existing topic');
  await fails('INVALID_TOPIC_EXCEPTION', () => admin.createTopics({ topics: [{ topic: 'not a topic' }] }));
  const absent = name('invalid');
  await fails('INVALID_REPLICATION_FACTOR', () =>
    admin.createTopics({ topics: [{ topic: absent, replicationFactor: 99 }] }),
  );
  await fails('INVALID_CONFIG', () =>
    admin.createTopics({ topics: [{ topic: absent, configEntries: [{ name: 'no.such.config', value: '1' }] }] }),
  );
  await admin.createTopics({ topics: [{ topic: absent }], validateOnly: true, waitForLeaders: false });
  that(!(await admin.listTopics()).includes(absent), 'validateOnly created a topic');
}

async function partitionsGrowAndNeverShrink() {
  const topicName = await topic('grow', 2);
  const grow = (count) => admin.createPartitions({ topicPartitions: [{ topic: topicName, count }] });
  await grow(5);
  await eventually('five partitions', async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topicName] });
    return topics[0].partitions.length === 5;
  });
  await fails('INVALID_PARTITIONS', () => grow(3));
}

async function config(topicName, key) {
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: ConfigResourceTypes.TOPIC, name: topicName, configNames: [key] }],
  });
  return resources[0].configEntries.find((entry) => entry.configName === key);
}

async function topicConfigsAreDescribedAndAltered() {
  const topicName = await topic('configs', 1, { 'retention.ms': '7200000', 'max.message.bytes': '5000' });
  equal('7200000', (await config(topicName, 'retention.ms')).configValue, 'retention.ms');
  equal('604800000', (await config(topicName, 'segment.ms')).configValue, 'segment.ms');
  // This client knows only the call that replaces all configs of a topic.
  const alter = (entries) =>
    admin.alterConfigs({
      validateOnly: false,
      resources: [{ type: ConfigResourceTypes.TOPIC, name: topicName, configEntries: entries }],
    });
  await alter([{ name: 'retention.ms', value: '900000' }]);
  await eventually(
    'retention.ms changed',
    async () => (await config(topicName, 'retention.ms')).configValue === '900000',
  );
  equal('1048588', (await config(topicName, 'max.message.bytes')).configValue, 'the config left out is the default');
  await fails('INVALID_CONFIG', () => alter([{ name: 'no.such.config', value: '1' }]));
}

async function deletedRecordsMoveTheLogStart() {
  const topicName = await topic('delete-records', 1);
  await send(topicName, records(1, 100, 200));
  const deleteBefore = (offset) =>
    admin.deleteTopicRecords({ topic: topicName, partitions: [{ partition: 0, offset }] });
  await deleteBefore('30');
  const [offsets] = await admin.fetchTopicOffsets(topicName);
  equal({ low: '30', high: '100' }, { low: offsets.low, high: offsets.high }, 'offsets');
  await fails('OFFSET_OUT_OF_RANGE', () => deleteBefore('101'));
  await deleteBefore('-1');
  equal('100', (await admin.fetchTopicOffsets(topicName))[0].low, 'log start after deleting all');
}

async function offsetsAreFoundByTimestamp() {
  const topicName = await topic('times', 1);
  const base = Date.now() - 3_600_000;
  const times = [0, 10, 20, 30, 5];
  await send(topicName, times.map((after) => ({ value: Buffer.of(after), timestamp: String(base + after) })));
  for (const [after, offset] of [[0, '0'], [1, '1'], [11, '2'], [30, '3']]) {
    const [found] = await admin.fetchTopicOffsetsByTimestamp(topicName, base + after);
    equal(offset, found.offset, `offset for ${after} ms`);
  }
}

async function deletedTopicIsGone() {
  const topicName = await topic('delete', 2);
  await send(topicName, records(2, 50, 100));
  await admin.deleteTopics({ topics: [topicName] });
  await eventually('not listed', async () => !(await admin.listTopics()).includes(topicName));
  await fails('UNKNOWN_TOPIC_OR_PARTITION', () => admin.deleteTopics({ topics: [topicName] }));
}

// Produce

async function roundTrip(codec, acks) {
  const topicName = await topic(`${codec}-${acks}`, 3);
  const sent = records(3, 600, 400);
  await send(topicName, sent, { compression: CODECS[codec], acks });
  await sameIsRead(topicName, 3, sent);
}

async function idempotent() {
  const topicName = await topic('idempotent', 3);
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  const sent = records(3, 900, 200);
  for (let at = 0; at < sent.length; at += 90) {
    await producer.send({ topic: topicName, messages: sent.slice(at, at + 90), acks: -1 });
  }
  await producer.disconnect();
  await sameIsRead(topicName, 3, sent);
}

async function largeBatches(codec) {
  const topicName = await topic(`large-${codec}`, 2);
  const payload = payloads(7);
  const sent = [0, 1, 0, 1].map((partition) => ({ partition, key: null, value: payload(100_000) }));
  const large = [
    { partition: 0, key: null, value: payload(900 * 1024) },
    { partition: 1, key: null, value: Buffer.alloc(900 * 1024) },
  ];
  await send(topicName, sent, { compression: CODECS[codec] });
  await send(topicName, large, { compression: CODECS[codec] });
  await sameIsRead(topicName, 2, sent.concat(large));
}

async function nullsAreKept() {
  const topicName = await topic('nulls', 1);
  const some = Buffer.of(1, 2, 3);
  const empty = Buffer.alloc(0);
  const sent = [];
  for (const key of [null, empty, some]) {
    for (const value of [null, empty, some]) {
      // The reader's client has no way to tell apart what kafkajs sends for a null header, so there is none.
      sent.push({ partition: 0, key, value, headers: { empty, 'ключ': some } });
    }
  }
  await send(topicName, sent);
  await sameIsRead(topicName, 1, sent);
}

async function manySmallRecords() {
  const topicName = await topic('small', 3);
  const sent = records(3, 20_000, 40);
  await send(topicName, sent);
  await sameIsRead(topicName, 3, sent);
}

async function tooLargeIsRefused() {
  const topicName = await topic('too-large', 1, { 'max.message.bytes': '10000' });
  await fails('MESSAGE_TOO_LARGE', () => send(topicName, [{ value: Buffer.alloc(20_000) }]));
  const [metadata] = await send(topicName, [{ value: Buffer.alloc(5_000) }]);
  equal('0', metadata.baseOffset, 'offset of the record that fits');
}

async function autoCreation() {
  const topicName = name('auto');
  const sent = records(1, 10, 100);
  await send(topicName, sent);
  await sameIsRead(topicName, 1, sent);
}

async function unknownTopicIsReported() {
  await fails('UNKNOWN_TOPIC_OR_PARTITION', () =>
    send(name('absent'), [{ value: 'x' }], { allowAutoTopicCreation: false, retry: { retries: 0 } }),
  );
}

// Compaction

// Keys that come again and again, keys that come once, and tombstones of either: what stays has holes around it.
function keyedRecords() {
  return Array.from({ length: 300 }, (_, i) => ({
    partition: 0,
    key: i % 20 === 0 ? `once-${i}` : `key-${i % 7}`,
    value: i % 60 === 0 || i === 297 ? null : `${i}${' '.repeat(400)}`,
  }));
}

// Offset, key and value of the newest record of every key, as far as it is at `begin` or behind.
function newest(written, begin) {
  const last = new Map(written.map(({ key }, offset) => [key, offset]));
  const kept = written.map(({ key, value }, offset) => [offset, key, value]);
  return kept.filter(([offset, key]) => offset >= begin && last.get(key) === offset);
}

async function compactedTopic(codec) {
  const configs = { 'cleanup.policy': 'compact', 'segment.bytes': '1048576', 'min.cleanable.dirty.ratio': '0.01' };
  const topicName = await topic(`compact-${codec}`, 1, configs);
  const written = keyedRecords();
  // So many at once that it makes several batches.
  for (let at = 0; at < written.length; at += 30) {
    await send(topicName, written.slice(at, at + 30), { compression: CODECS[codec] });
  }
  // Only closed segments are compacted. A record of this size closes one.
  const close = () => send(topicName, [{ partition: 0, key: 'closing', value: Buffer.alloc(900_000) }]);
  await close();
  await close();
  const consumer = kafka.consumer({ groupId: topicName, maxWaitTimeInMs: 50 });
  let read = [];
  await consumer.connect();
  await consumer.subscribe({ topics: [topicName], fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ message }) => {
      const offset = Number(message.offset);
      // Offsets fall where it was told to read again, and nowhere else.
      if (read.length > 0 && offset <= read.at(-1)[0]) read = [];
      read.push([offset, message.key.toString(), message.value === null ? null : message.value.toString()]);
    },
  });
  const readToEnd = async (begin) => {
    const [{ high }] = await admin.fetchTopicOffsets(topicName);
    read = [];
    consumer.seek({ topic: topicName, partition: 0, offset: String(begin) });
    // What was on its way before comes first. No hole is as wide as what lies behind the records with keys.
    const isRead = () => read.length > 1 && read[0][0] < written.length && read.at(-1)[0] === Number(high) - 1;
    await eventually('the end is read', isRead);
    return read.filter(([offset]) => offset < written.length);
  };
  await eventually('one record of every key, at its offset', async () => {
    const found = await readToEnd(0);
    // Each look is something new, so that the log is dirty.
    await close();
    return JSON.stringify(found) === JSON.stringify(newest(written, 0));
  });
  for (const begin of [1, 21, 281]) {
    equal(newest(written, begin), await readToEnd(begin), `what follows the hole at ${begin}`);
  }
  await consumer.disconnect();
}

// Groups

// A consumer that runs: what it read, and the partitions that it has.
async function member(groupId, topicName) {
  const consumer = kafka.consumer({ groupId, sessionTimeout: 6_000, heartbeatInterval: 300, maxWaitTimeInMs: 50 });
  const found = { consumer, read: [], partitions: [] };
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    found.partitions = payload.memberAssignment[topicName] ?? [];
  });
  await consumer.connect();
  await consumer.subscribe({ topics: [topicName], fromBeginning: true });
  await consumer.run({
    eachMessage: async ({ partition, message }) => {
      found.read.push(`${partition}@${message.offset}`);
    },
  });
  return found;
}

async function groupGoesOnWhereItCommitted() {
  const topicName = await topic('group-goes-on', 3);
  await send(topicName, records(3, 300, 100));
  const first = await member(topicName, topicName);
  await eventually('everything is read', () => first.read.length === 300);
  await first.consumer.disconnect();
  await send(topicName, records(3, 30, 100));
  const second = await member(topicName, topicName);
  await eventually('the rest is read', () => second.read.length >= 30);
  that(second.read.every((place) => Number(place.split('@')[1]) >= 100), 'nothing is read again');
  await second.consumer.disconnect();
}

async function groupSharesWithASecondMember() {
  const topicName = await topic('group-shares', 4);
  const first = await member(topicName, topicName);
  await eventually('all are with the first', () => first.partitions.length === 4);
  const second = await member(topicName, topicName);
  await eventually('both have two', () => first.partitions.length === 2 && second.partitions.length === 2);
  equal(4, new Set([...first.partitions, ...second.partitions]).size, 'partitions of both');
  await second.consumer.disconnect();
  await eventually('all are with the first again', () => first.partitions.length === 4);
  await first.consumer.disconnect();
}

async function groupIsAdministered() {
  const topicName = await topic('group-admin', 2);
  const { consumer, partitions } = await member(topicName, topicName);
  that(partitions !== undefined, 'partitions');
  const state = async () => (await admin.describeGroups([topicName])).groups[0].state;
  await eventually('it is stable', async () => (await state()) === 'Stable');
  that((await admin.listGroups()).groups.some((group) => group.groupId === topicName), 'the group is listed');
  await consumer.disconnect();
  await eventually('it is empty', async () => (await state()) === 'Empty');
  await admin.setOffsets({ groupId: topicName, topic: topicName, partitions: [{ partition: 0, offset: '7' }] });
  const [found] = await admin.fetchOffsets({ groupId: topicName, topics: [topicName] });
  equal(['7', '-1'], found.partitions.map((one) => one.offset), 'offsets');
  await admin.deleteGroups([topicName]);
  await eventually('it is gone', async () => (await state()) === 'Dead');
}

async function main() {
  await admin.connect();
  await check('cluster_is_described', clusterIsDescribed);
  await check('topic_is_created_listed_and_described', topicIsCreatedListedAndDescribed);
  await check('wrong_topics_are_refused', wrongTopicsAreRefused);
  await check('partitions_grow_and_never_shrink', partitionsGrowAndNeverShrink);
  await check('topic_configs_are_described_and_altered', topicConfigsAreDescribedAndAltered);
  await check('deleted_records_move_the_log_start', deletedRecordsMoveTheLogStart);
  await check('offsets_are_found_by_timestamp', offsetsAreFoundByTimestamp);
  await check('deleted_topic_is_gone', deletedTopicIsGone);
  for (const codec of Object.keys(CODECS)) {
    for (const acks of [0, 1, -1]) {
      await check(`codec_${codec}_acks_${acks === -1 ? 'all' : acks}`, () => roundTrip(codec, acks));
    }
    await check(`codec_${codec}_large_batches`, () => largeBatches(codec));
  }
  await check('idempotent_producer', idempotent);
  await check('null_and_empty_keys_values_and_headers_are_kept', nullsAreKept);
  await check('many_small_records_over_three_partitions', manySmallRecords);
  await check('record_over_max_message_bytes_is_refused', tooLargeIsRefused);
  await check('producer_creates_a_missing_topic', autoCreation);
  await check('unknown_topic_is_reported', unknownTopicIsReported);
  for (const codec of Object.keys(CODECS)) {
    await check(`compacted_topic_keeps_the_newest_of_every_key_${codec}`, () => compactedTopic(codec));
  }
  await check('group_goes_on_where_it_committed', groupGoesOnWhereItCommitted);
  await check('group_shares_with_a_second_member', groupSharesWithASecondMember);
  await check('group_is_administered', groupIsAdministered);
  await admin.disconnect();
}

main()
  .catch((error) => {
    failed += 1;
    console.log(`FAIL suite ${String(error).replaceAll('\n', ' ')}`);
  })
  .finally(() => {
    console.log(`${passed} passed, ${failed} failed`);
    process.exit(failed === 0 && passed > 0 ? 0 : 1);
  });
