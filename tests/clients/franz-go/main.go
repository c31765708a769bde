// franz-go against the broker at BOOTSTRAP: admin, produce, consume with assigned partitions and in groups.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"regexp"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// suite is the broker under test: makes clients for it, and topics with names of this run.
type suite struct {
	bootstrap string
	run       string
	admin     *kadm.Client
	// Of topics, unless a check is about that.
	replicas int16
}

func main() {
	bootstrap := os.Getenv("BOOTSTRAP")
	s := &suite{bootstrap: bootstrap, run: fmt.Sprintf("franz-%x-%x", time.Now().UnixMilli(), os.Getpid())}
	s.replicas = 1
	if text := os.Getenv("REPLICAS"); text != "" {
		if _, err := fmt.Sscan(text, &s.replicas); err != nil {
			fmt.Println("FAIL suite REPLICAS", err)
			os.Exit(1)
		}
	}
	client, err := s.client()
	if err != nil {
		fmt.Println("FAIL suite", err)
		os.Exit(1)
	}
	s.admin = kadm.NewClient(client)
	c := &checks{only: regexp.MustCompile(os.Getenv("CHECKS"))}
	s.adminChecks(c)
	s.produceChecks(c)
	s.consumeChecks(c)
	s.groupChecks(c)
	c.finish()
}

func (s *suite) name(what string) string { return s.run + "-" + what }

func (s *suite) client(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(s.bootstrap),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(5 * time.Millisecond),
		kgo.FetchMaxWait(50 * time.Millisecond),
		// Nothing resets a position silently.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	}, options...)...)
}

func (s *suite) topic(ctx context.Context, what string, partitions int32, configs map[string]*string) (string, error) {
	name := s.name(what)
	if _, err := s.admin.CreateTopic(ctx, partitions, s.replicas, configs, name); err != nil {
		return "", fmt.Errorf("create %s: %w", name, err)
	}
	// Kafka acknowledges a topic a moment before its leaders serve.
	return name, eventually("leaders of "+name+" answer", func() (bool, error) {
		offsets, err := s.admin.ListEndOffsets(ctx, name)
		if err != nil {
			return false, err
		}
		return offsets.Error() == nil && len(offsets[name]) == int(partitions), nil
	})
}

// send sends all and waits for all.
func (s *suite) send(ctx context.Context, records []*kgo.Record, options ...kgo.Opt) error {
	client, err := s.client(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.ProduceSync(ctx, records...).FirstErr()
}

func (s *suite) assigned(topic string, partitions int32, at kgo.Offset, options ...kgo.Opt) (*kgo.Client, error) {
	offsets := map[int32]kgo.Offset{}
	for p := range partitions {
		offsets[p] = at
	}
	return s.client(append(options, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}))...)
}

// take polls until there are this many records. More than asked for is an error of the broker, and is seen.
func take(ctx context.Context, client *kgo.Client, count int) ([]*kgo.Record, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < count {
		fetches := client.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			return records, fmt.Errorf("after %d of %d records: %w", len(records), count, errs[0].Err)
		}
		records = append(records, fetches.Records()...)
	}
	return records, equal(count, len(records), "records read")
}

func (s *suite) read(
	ctx context.Context, topic string, partitions int32, count int, options ...kgo.Opt,
) ([]*kgo.Record, error) {
	client, err := s.assigned(topic, partitions, kgo.NewOffset().AtStart(), options...)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return take(ctx, client, count)
}

// sendAndCompare sends the records and compares them with what is read then.
func (s *suite) sendAndCompare(
	ctx context.Context, topic string, partitions int32, records []*kgo.Record, options ...kgo.Opt,
) error {
	if err := s.send(ctx, records, options...); err != nil {
		return err
	}
	got, err := s.read(ctx, topic, partitions, len(records))
	if err != nil {
		return err
	}
	return same(records, got)
}

// payload is half random bytes, half repeated ones, so that a codec has something to do.
func payload(source *rand.Rand, size int) []byte {
	data := make([]byte, size)
	source.Read(data)
	copy(data, bytes.Repeat([]byte{byte(size)}, size/2))
	return data
}

// makeRecords deals records with keys, values, headers and timestamps to the partitions in turn.
func makeRecords(topic string, partitions int32, count, sizeMax int) []*kgo.Record {
	source := rand.New(rand.NewSource(int64(count*31 + sizeMax)))
	start := time.UnixMilli(time.Now().UnixMilli())
	records := make([]*kgo.Record, count)
	for i := range records {
		records[i] = &kgo.Record{
			Topic:     topic,
			Partition: int32(i) % partitions,
			Key:       payload(source, source.Intn(20)),
			Value:     payload(source, source.Intn(sizeMax)),
			Timestamp: start.Add(time.Duration(i/100) * time.Millisecond),
		}
		if i%3 == 0 {
			header := kgo.RecordHeader{Key: fmt.Sprint("h", i), Value: payload(source, source.Intn(30))}
			records[i].Headers = []kgo.RecordHeader{header}
		}
	}
	return records
}

// same compares what was sent with what was read, partition by partition, byte for byte. Offsets start at 0.
func same(sent, read []*kgo.Record) error {
	expected := map[int32][]*kgo.Record{}
	for _, record := range sent {
		expected[record.Partition] = append(expected[record.Partition], record)
	}
	next := map[int32]int{}
	for _, got := range read {
		index := next[got.Partition]
		next[got.Partition]++
		where := fmt.Sprintf("%d@%d", got.Partition, got.Offset)
		if index >= len(expected[got.Partition]) {
			return fmt.Errorf("more records than were sent: %s", where)
		}
		want := expected[got.Partition][index]
		if err := errors.Join(
			equal(int64(index), got.Offset, "offset at "+where),
			that(sameBytes(want.Key, got.Key), "key differs at %s", where),
			that(sameBytes(want.Value, got.Value), "value differs at %s", where),
			equal(want.Timestamp.UnixMilli(), got.Timestamp.UnixMilli(), "timestamp at "+where),
			equal(len(want.Headers), len(got.Headers), "headers at "+where),
		); err != nil {
			return err
		}
		for h, header := range want.Headers {
			matches := header.Key == got.Headers[h].Key && sameBytes(header.Value, got.Headers[h].Value)
			if err := that(matches, "header %d differs at %s", h, where); err != nil {
				return err
			}
		}
	}
	return equal(len(sent), len(read), "records")
}

// sameBytes tells null from empty, unlike bytes.Equal.
func sameBytes(a, b []byte) bool { return (a == nil) == (b == nil) && bytes.Equal(a, b) }

func text(value string) *string { return &value }

var errOutOfRange, errUnknownTopic = kerr.OffsetOutOfRange, kerr.UnknownTopicOrPartition
