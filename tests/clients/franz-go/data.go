package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var codecs = []struct {
	name  string
	codec kgo.CompressionCodec
}{
	{"none", kgo.NoCompression()},
	{"gzip", kgo.GzipCompression()},
	{"snappy", kgo.SnappyCompression()},
	{"lz4", kgo.Lz4Compression()},
	{"zstd", kgo.ZstdCompression()},
}

// Timestamps of five records, in milliseconds after timesBase; neither start at now nor grow steadily.
var (
	timesBase      = time.Now().UnixMilli() - 3_600_000
	timesAfterBase = []int64{0, 10, 20, 30, 5}
)

func timedRecords(topic string) []*kgo.Record {
	var records []*kgo.Record
	for _, after := range timesAfterBase {
		timestamp := time.UnixMilli(timesBase + after)
		records = append(records, &kgo.Record{Topic: topic, Value: []byte{byte(after)}, Timestamp: timestamp})
	}
	return records
}

func (s *suite) produceChecks(c *checks) {
	for _, codec := range codecs {
		compression := kgo.ProducerBatchCompression(codec.codec)
		for _, level := range []struct {
			name string
			acks kgo.Acks
		}{{"0", kgo.NoAck()}, {"1", kgo.LeaderAck()}, {"all", kgo.AllISRAcks()}} {
			what := "codec_" + codec.name + "_acks_" + level.name
			c.check(what, func(ctx context.Context) error {
				return s.roundTrip(ctx, what, compression, kgo.RequiredAcks(level.acks), kgo.DisableIdempotentWrite())
			})
		}
		what := "codec_" + codec.name + "_idempotent"
		c.check(what, func(ctx context.Context) error { return s.roundTrip(ctx, what, compression) })
		what = "codec_" + codec.name + "_large_batches"
		c.check(what, func(ctx context.Context) error { return s.largeBatches(ctx, what, compression) })
	}
	c.check("null_and_empty_keys_values_and_headers_are_kept", s.nullsAreKept)
	c.check("many_small_records_over_three_partitions", s.manySmallRecords)
	c.check("idempotent_order_is_kept_with_five_in_flight", s.orderIsKept)
	c.check("record_over_max_message_bytes_is_refused", s.tooLargeIsRefused)
	c.check("create_time_is_kept", s.createTimeIsKept)
	c.check("log_append_time_replaces_the_clients", s.logAppendTime)
	c.check("producer_creates_a_missing_topic", s.autoCreation)
	c.check("producing_to_an_unknown_topic_is_reported", s.unknownTopicToProducer)
}

func (s *suite) roundTrip(ctx context.Context, what string, options ...kgo.Opt) error {
	name, err := s.topic(ctx, what, 3, nil)
	if err != nil {
		return err
	}
	return s.sendAndCompare(ctx, name, 3, makeRecords(name, 3, 600, 400), options...)
}

func (s *suite) largeBatches(ctx context.Context, what string, compression kgo.Opt) error {
	name, err := s.topic(ctx, what, 2, nil)
	if err != nil {
		return err
	}
	records := makeRecords(name, 2, 60, 60_000)
	now := records[0].Timestamp
	random := payload(rand.New(rand.NewSource(1)), 900*1024)
	records = append(records,
		&kgo.Record{Topic: name, Partition: 0, Value: random, Timestamp: now},
		&kgo.Record{Topic: name, Partition: 1, Value: make([]byte, 900*1024), Timestamp: now})
	return s.sendAndCompare(ctx, name, 2, records, compression, kgo.ProducerLinger(50*time.Millisecond))
}

func (s *suite) nullsAreKept(ctx context.Context) error {
	name, err := s.topic(ctx, "nulls", 1, nil)
	if err != nil {
		return err
	}
	now := time.UnixMilli(time.Now().UnixMilli())
	var records []*kgo.Record
	for _, key := range [][]byte{nil, {}, {1, 2}} {
		for _, value := range [][]byte{nil, {}, {3}} {
			records = append(records, &kgo.Record{Topic: name, Key: key, Value: value, Timestamp: now})
		}
	}
	records[0].Headers = []kgo.RecordHeader{
		{Key: "same", Value: []byte{1}}, {Key: "same", Value: []byte{}}, {Key: "null"}, {Key: "ключ", Value: []byte{2}},
	}
	return s.sendAndCompare(ctx, name, 1, records)
}

func (s *suite) manySmallRecords(ctx context.Context) error {
	name, err := s.topic(ctx, "small", 3, nil)
	if err != nil {
		return err
	}
	return s.sendAndCompare(ctx, name, 3, makeRecords(name, 3, 20_000, 40))
}

func (s *suite) orderIsKept(ctx context.Context) error {
	name, err := s.topic(ctx, "order", 4, nil)
	if err != nil {
		return err
	}
	return s.sendAndCompare(ctx, name, 4, makeRecords(name, 4, 8_000, 100),
		kgo.ProducerLinger(0), kgo.ProducerBatchMaxBytes(1_500))
}

func (s *suite) tooLargeIsRefused(ctx context.Context) error {
	name, err := s.topic(ctx, "too-large", 1, map[string]*string{"max.message.bytes": text("10000")})
	if err != nil {
		return err
	}
	record := func(size int) []*kgo.Record { return []*kgo.Record{{Topic: name, Value: make([]byte, size)}} }
	plain := kgo.ProducerBatchCompression(kgo.NoCompression())
	return errors.Join(
		fails(kerr.MessageTooLarge, s.send(ctx, record(20_000), plain), "record over the limit"),
		s.send(ctx, record(5_000), plain),
	)
}

func (s *suite) createTimeIsKept(ctx context.Context) error {
	name, err := s.topic(ctx, "create-time", 1, nil)
	if err != nil {
		return err
	}
	return s.sendAndCompare(ctx, name, 1, timedRecords(name))
}

func (s *suite) logAppendTime(ctx context.Context) error {
	configs := map[string]*string{"message.timestamp.type": text("LogAppendTime")}
	name, err := s.topic(ctx, "append-time", 1, configs)
	if err != nil {
		return err
	}
	before := time.Now().UnixMilli()
	if err := s.send(ctx, timedRecords(name)); err != nil {
		return err
	}
	records, err := s.read(ctx, name, 1, 5)
	if err != nil {
		return err
	}
	for _, record := range records {
		if err := errors.Join(
			equal(int8(1), record.Attrs.TimestampType(), "timestamp type"),
			that(record.Timestamp.UnixMilli() >= before, "timestamp is not the broker's"),
		); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) autoCreation(ctx context.Context) error {
	name := s.name("auto")
	return s.sendAndCompare(ctx, name, 1, makeRecords(name, 1, 10, 100), kgo.AllowAutoTopicCreation())
}

func (s *suite) unknownTopicToProducer(ctx context.Context) error {
	records := makeRecords(s.name("absent"), 1, 1, 10)
	return fails(errUnknownTopic, s.send(ctx, records, kgo.UnknownTopicRetries(1)), "unknown topic")
}

func (s *suite) consumeChecks(c *checks) {
	c.check("consume_from_earliest_latest_and_offset", s.startPositions)
	c.check("consume_from_a_timestamp", s.consumeFromTimestamp)
	c.check("out_of_range_is_reported_without_reset_policy", s.outOfRangeIsReported)
	c.check("out_of_range_resets_to_the_policys_end", s.outOfRangeResets)
	c.check("long_poll_returns_when_a_record_arrives", s.longPollReturns)
	c.check("record_over_fetch_limits_is_still_read", s.recordOverFetchLimits)
	c.check("read_committed_reads_to_the_end", s.readCommitted)
	for _, codec := range codecs {
		what := "compacted_topic_keeps_the_newest_of_every_key_" + codec.name
		c.check(what, func(ctx context.Context) error {
			return s.compactedTopic(ctx, what, kgo.ProducerBatchCompression(codec.codec))
		})
	}
}

// firstOffset is the offset of the first of count records that a consumer reads from there.
func (s *suite) firstOffset(ctx context.Context, topic string, at kgo.Offset, count int) (int64, error) {
	client, err := s.assigned(topic, 1, at)
	if err != nil {
		return -1, err
	}
	defer client.Close()
	records, err := take(ctx, client, count)
	if err != nil {
		return -1, err
	}
	return records[0].Offset, nil
}

func (s *suite) filled(ctx context.Context, what string, count int) (string, error) {
	name, err := s.topic(ctx, what, 1, nil)
	if err != nil {
		return "", err
	}
	return name, s.send(ctx, makeRecords(name, 1, count, 100))
}

func (s *suite) startPositions(ctx context.Context) error {
	name, err := s.filled(ctx, "positions", 100)
	if err != nil {
		return err
	}
	for _, position := range []struct {
		at    kgo.Offset
		first int64
	}{
		{kgo.NewOffset().AtStart(), 0},
		{kgo.NewOffset().At(40), 40},
		{kgo.NewOffset().AtEnd().Relative(-10), 90},
	} {
		got, err := s.firstOffset(ctx, name, position.at, int(100-position.first))
		if err = errors.Join(err, equal(position.first, got, "first offset from "+position.at.String())); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) consumeFromTimestamp(ctx context.Context) error {
	name, err := s.topic(ctx, "times", 1, nil)
	if err != nil {
		return err
	}
	for _, record := range timedRecords(name) {
		if err := s.send(ctx, []*kgo.Record{record}); err != nil {
			return err
		}
	}
	for after, first := range map[int64]int64{0: 0, 1: 1, 10: 1, 11: 2, 21: 3} {
		at := kgo.NewOffset().AfterMilli(timesBase + after)
		got, err := s.firstOffset(ctx, name, at, int(5-first))
		if err = errors.Join(err, equal(first, got, fmt.Sprintf("first offset after %d ms", after))); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) outOfRangeIsReported(ctx context.Context) error {
	name, err := s.filled(ctx, "range-error", 50)
	if err != nil {
		return err
	}
	if _, err := s.deleteRecords(ctx, name, 10); err != nil {
		return err
	}
	for _, offset := range []int64{51, 1_000_000, 9} {
		_, err := s.firstOffset(ctx, name, kgo.NewOffset().At(offset), 1)
		if err = fails(errOutOfRange, err, fmt.Sprintf("offset %d", offset)); err != nil {
			return err
		}
	}
	return nil
}

func (s *suite) outOfRangeResets(ctx context.Context) error {
	name, err := s.filled(ctx, "range-reset", 50)
	if err != nil {
		return err
	}
	reset := kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())
	client, err := s.assigned(name, 1, kgo.NewOffset().At(1_000), reset)
	if err != nil {
		return err
	}
	defer client.Close()
	records, err := take(ctx, client, 50)
	if err != nil {
		return err
	}
	return equal(int64(0), records[0].Offset, "first offset")
}

func (s *suite) longPollReturns(ctx context.Context) error {
	name, err := s.topic(ctx, "long-poll", 1, nil)
	if err != nil {
		return err
	}
	client, err := s.assigned(name, 1, kgo.NewOffset().AtStart(), kgo.FetchMaxWait(25*time.Second))
	if err != nil {
		return err
	}
	defer client.Close()
	// Sends the fetch, which then stays parked at the broker.
	short, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
	defer cancel()
	if err := equal(0, client.PollFetches(short).NumRecords(), "records before"); err != nil {
		return err
	}
	if err := s.send(ctx, makeRecords(name, 1, 1, 10)); err != nil {
		return err
	}
	prompt, cancelPrompt := context.WithTimeout(ctx, 12*time.Second)
	defer cancelPrompt()
	_, err = take(prompt, client, 1)
	return err
}

func (s *suite) recordOverFetchLimits(ctx context.Context) error {
	name, err := s.topic(ctx, "fetch-limits", 2, nil)
	if err != nil {
		return err
	}
	records := makeRecords(name, 2, 20, 50_000)
	if err := s.send(ctx, records); err != nil {
		return err
	}
	got, err := s.read(ctx, name, 2, 20, kgo.FetchMaxBytes(1_000), kgo.FetchMaxPartitionBytes(1_000))
	if err != nil {
		return err
	}
	return same(records, got)
}

func (s *suite) readCommitted(ctx context.Context) error {
	name, err := s.topic(ctx, "committed", 2, nil)
	if err != nil {
		return err
	}
	records := makeRecords(name, 2, 500, 100)
	if err := s.send(ctx, records); err != nil {
		return err
	}
	got, err := s.read(ctx, name, 2, 500, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return err
	}
	return same(records, got)
}

// keyedRecords are keys that come again and again, keys that come once, and tombstones of either: what stays of them
// has holes around it.
func keyedRecords(topic string) []*kgo.Record {
	records := make([]*kgo.Record, 300)
	for i := range records {
		key, value := fmt.Sprint("key-", i%7), append(fmt.Append(nil, i), make([]byte, 400)...)
		if i%20 == 0 {
			key = fmt.Sprint("once-", i)
		}
		if i%60 == 0 || i == 297 {
			value = nil
		}
		records[i] = &kgo.Record{Topic: topic, Key: []byte(key), Value: value, Offset: int64(i)}
	}
	return records
}

// newest is the newest record of every key, as far as it is at begin or behind.
func newest(written []*kgo.Record, begin int64) []*kgo.Record {
	last := map[string]int64{}
	for _, record := range written {
		last[string(record.Key)] = record.Offset
	}
	var found []*kgo.Record
	for _, record := range written {
		if record.Offset >= begin && last[string(record.Key)] == record.Offset {
			found = append(found, record)
		}
	}
	return found
}

// sameKept says what differs between what was to be kept and what was read.
func sameKept(want, got []*kgo.Record) error {
	for i := range min(len(want), len(got)) {
		same := want[i].Offset == got[i].Offset && sameBytes(want[i].Key, got[i].Key) &&
			sameBytes(want[i].Value, got[i].Value)
		if err := that(same, "expected %d, read %d", want[i].Offset, got[i].Offset); err != nil {
			return err
		}
	}
	return equal(len(want), len(got), "records kept")
}

// readToEnd is what is read from begin on until the last record there is, as far as it is below limit.
func (s *suite) readToEnd(ctx context.Context, topic string, begin, limit int64) ([]*kgo.Record, error) {
	ends, err := s.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return nil, err
	}
	end, _ := ends.Lookup(topic, 0)
	committed := kgo.FetchIsolationLevel(kgo.ReadCommitted())
	client, err := s.assigned(topic, 1, kgo.NewOffset().At(begin), committed)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	var found []*kgo.Record
	for next := begin; next < end.Offset; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, fmt.Errorf("at %d of %d: %w", next, end.Offset, err)
		}
		for _, record := range fetches.Records() {
			if record.Offset < limit {
				found = append(found, record)
			}
			next = record.Offset + 1
		}
	}
	return found, nil
}

func (s *suite) compactedTopic(ctx context.Context, what string, compression kgo.Opt) error {
	configs := map[string]*string{
		"cleanup.policy": text("compact"), "segment.bytes": text("1048576"), "min.cleanable.dirty.ratio": text("0.01"),
	}
	name, err := s.topic(ctx, what, 1, configs)
	if err != nil {
		return err
	}
	written := keyedRecords(name)
	// Only closed segments are compacted. A record of this size closes one.
	closing := func() error {
		record := &kgo.Record{Topic: name, Key: []byte("closing"), Value: make([]byte, 900_000)}
		return s.send(ctx, []*kgo.Record{record}, kgo.ProducerBatchCompression(kgo.NoCompression()))
	}
	if err := errors.Join(s.send(ctx, written, compression), closing(), closing()); err != nil {
		return err
	}
	limit := int64(len(written))
	if err := eventually("one record of every key, at its offset", func() (bool, error) {
		found, err := s.readToEnd(ctx, name, 0, limit)
		// Each look is something new, so that the log is dirty.
		err = errors.Join(err, closing())
		return sameKept(newest(written, 0), found) == nil, err
	}); err != nil {
		return err
	}
	for _, begin := range []int64{1, 21, 281} {
		found, err := s.readToEnd(ctx, name, begin, limit)
		if err := errors.Join(err, sameKept(newest(written, begin), found)); err != nil {
			return fmt.Errorf("what follows the hole at %d: %w", begin, err)
		}
	}
	return nil
}
