// An idempotent producer and a consumer of TOPIC with PARTITIONS partitions, until standard input ends. Every record is
// "franz-go:PARTITION:NUMBER", numbers of a partition from 0 on. Writes to ACKNOWLEDGED a line "partition offset value" for
// each record that was acknowledged, to FAILED one with -1 as offset for each that was given up, to CONSUMED one for each
// that was read. Ends with 0 when everything that was sent is either.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const roundPause = 4 * time.Millisecond

func main() {
	topic := os.Getenv("TOPIC")
	partitions, err := strconv.Atoi(os.Getenv("PARTITIONS"))
	if err != nil {
		fail(err)
	}
	ending, end := context.WithCancel(context.Background())
	go func() {
		// Only the end of the input counts.
		_, _ = io.Copy(io.Discard, os.Stdin)
		end()
	}()
	var consumer sync.WaitGroup
	consumer.Go(func() { consume(ending, topic, int32(partitions)) })
	produce(ending, topic, int32(partitions))
	consumer.Wait()
}

func produce(ending context.Context, topic string, partitions int32) {
	acknowledged, failed := open("ACKNOWLEDGED"), open("FAILED")
	client := connect(
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.ProducerLinger(0),
		kgo.RecordDeliveryTimeout(20*time.Second),
	)
	var lock sync.Mutex
	for number := 0; ending.Err() == nil; number++ {
		for partition := range partitions {
			value := fmt.Sprintf("franz-go:%d:%d", partition, number)
			record := &kgo.Record{Topic: topic, Partition: partition, Value: []byte(value)}
			client.Produce(context.Background(), record, func(record *kgo.Record, err error) {
				lock.Lock()
				defer lock.Unlock()
				if err != nil {
					fmt.Fprintf(os.Stderr, "%s: %v\n", value, err)
					fmt.Fprintln(failed, record.Partition, -1, value)
					return
				}
				fmt.Fprintln(acknowledged, record.Partition, record.Offset, value)
			})
		}
		time.Sleep(roundPause)
	}
	if err := client.Flush(context.Background()); err != nil {
		fail(err)
	}
	client.Close()
	lock.Lock()
	defer lock.Unlock()
	flush(acknowledged)
	flush(failed)
}

func consume(ending context.Context, topic string, partitions int32) {
	consumed := open("CONSUMED")
	offsets := map[int32]kgo.Offset{}
	for partition := range partitions {
		offsets[partition] = kgo.NewOffset().At(0)
	}
	client := connect(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}),
		// Nothing that was there may be gone: a position out of range ends this.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchMaxWait(100*time.Millisecond),
	)
	defer client.Close()
	for ending.Err() == nil {
		fetches := client.PollFetches(ending)
		for _, err := range fetches.Errors() {
			if !errors.Is(err.Err, context.Canceled) {
				fail(fmt.Errorf("partition %d: %w", err.Partition, err.Err))
			}
		}
		fetches.EachRecord(func(record *kgo.Record) {
			fmt.Fprintln(consumed, record.Partition, record.Offset, string(record.Value))
		})
	}
	flush(consumed)
}

func connect(options ...kgo.Opt) *kgo.Client {
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(strings.Split(os.Getenv("BOOTSTRAP"), ",")...),
		kgo.MetadataMinAge(50 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
		kgo.ProduceRequestTimeout(3 * time.Second),
		kgo.RequestTimeoutOverhead(3 * time.Second),
	}, options...)...)
	if err != nil {
		fail(err)
	}
	return client
}

func open(variable string) *bufio.Writer {
	file, err := os.Create(os.Getenv(variable))
	if err != nil {
		fail(err)
	}
	return bufio.NewWriter(file)
}

func flush(writer *bufio.Writer) {
	if err := writer.Flush(); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "load:", err)
	os.Exit(1)
}
