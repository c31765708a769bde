package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func (s *suite) adminChecks(c *checks) {
	c.check("cluster_is_described", s.clusterIsDescribed)
	c.check("topic_is_created_listed_and_described", s.topicIsCreated)
	c.check("wrong_topics_are_refused", s.wrongTopicsAreRefused)
	c.check("partitions_grow_and_never_shrink", s.partitionsGrow)
	c.check("topic_configs_are_described_and_altered", s.configs)
	c.check("deleted_records_move_the_log_start", s.deletedRecords)
	c.check("admin_lists_offsets_by_every_spec", s.listOffsets)
	c.check("deleted_topic_is_gone", s.deletedTopicIsGone)
}

func (s *suite) clusterIsDescribed(ctx context.Context) error {
	cluster, err := s.admin.BrokerMetadata(ctx)
	if err != nil {
		return err
	}
	ports := map[int32]bool{}
	ids := map[int32]bool{}
	for _, broker := range cluster.Brokers {
		ports[broker.Port], ids[broker.NodeID] = true, true
	}
	var port int32
	if _, err := fmt.Sscan(s.bootstrap[strings.LastIndex(s.bootstrap, ":")+1:], &port); err != nil {
		return err
	}
	return errors.Join(
		that(cluster.Cluster != "", "no cluster id"),
		that(ports[port], "own port is not among the brokers"),
		that(ids[cluster.Controller], "controller is not a node"),
	)
}

func (s *suite) topicIsCreated(ctx context.Context) error {
	name, err := s.topic(ctx, "create", 6, map[string]*string{"retention.ms": text("3600000")})
	if err != nil {
		return err
	}
	topics, err := s.admin.ListTopics(ctx)
	if err != nil {
		return err
	}
	topic := topics[name]
	if err := equal(6, len(topic.Partitions), "partitions listed"); err != nil {
		return err
	}
	for _, partition := range topic.Partitions {
		if err := that(partition.Leader >= 0 && len(partition.ISR) == int(s.replicas), "no leader: %v", partition); err != nil {
			return err
		}
	}
	return that(topic.ID != kadm.TopicID{}, "no topic id")
}

func (s *suite) wrongTopicsAreRefused(ctx context.Context) error {
	name, err := s.topic(ctx, "exists", 2, nil)
	if err != nil {
		return err
	}
	create := func(name string, partitions int32, replicas int16, configs map[string]*string) error {
		_, err := s.admin.CreateTopic(ctx, partitions, replicas, configs, name)
		return err
	}
	absent := s.name("invalid")
	return errors.Join(
		fails(kerr.TopicAlreadyExists, create(name, 1, 1, nil), "existing topic"),
		fails(kerr.InvalidTopicException, create("not a topic", 1, 1, nil), "invalid name"),
		fails(kerr.InvalidPartitions, create(absent, 0, 1, nil), "no partitions"),
		fails(kerr.InvalidReplicationFactor, create(absent, 1, 99, nil), "too many replicas"),
		fails(kerr.InvalidConfig, create(absent, 1, 1, map[string]*string{"no.such.config": text("1")}), "unknown key"),
		fails(kerr.InvalidConfig, create(absent, 1, 1, map[string]*string{"retention.ms": text("x")}), "bad value"),
	)
}

func (s *suite) partitionsGrow(ctx context.Context) error {
	name, err := s.topic(ctx, "grow", 2, nil)
	if err != nil {
		return err
	}
	set := func(count int) error {
		responses, err := s.admin.UpdatePartitions(ctx, count, name)
		if err != nil {
			return err
		}
		return responses[name].Err
	}
	if err := set(5); err != nil {
		return err
	}
	if err := eventually("five partitions", func() (bool, error) {
		topics, err := s.admin.ListTopics(ctx, name)
		return len(topics[name].Partitions) == 5, err
	}); err != nil {
		return err
	}
	return errors.Join(
		fails(kerr.InvalidPartitions, set(3), "fewer partitions"),
		fails(kerr.InvalidPartitions, set(5), "as many partitions"),
	)
}

func (s *suite) config(ctx context.Context, topic, key string) (kadm.Config, error) {
	resources, err := s.admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return kadm.Config{}, err
	}
	resource, err := resources.On(topic, nil)
	if err = errors.Join(err, resource.Err); err != nil {
		return kadm.Config{}, err
	}
	for _, config := range resource.Configs {
		if config.Key == key {
			return config, nil
		}
	}
	return kadm.Config{}, fmt.Errorf("no config %s", key)
}

func (s *suite) alter(ctx context.Context, topic string, alter kadm.AlterConfig) error {
	responses, err := s.admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{alter}, topic)
	if err != nil {
		return err
	}
	response, err := responses.On(topic, nil)
	return errors.Join(err, response.Err)
}

func (s *suite) configs(ctx context.Context) error {
	name, err := s.topic(ctx, "configs", 1, map[string]*string{"retention.ms": text("7200000")})
	if err != nil {
		return err
	}
	becomes := func(key, value string, source kmsg.ConfigSource) error {
		return eventually(key+" is "+value, func() (bool, error) {
			config, err := s.config(ctx, name, key)
			return err == nil && *config.Value == value && config.Source == source, err
		})
	}
	return errors.Join(
		becomes("retention.ms", "7200000", kmsg.ConfigSourceDynamicTopicConfig),
		becomes("segment.ms", "604800000", kmsg.ConfigSourceDefaultConfig),
		s.alter(ctx, name, kadm.AlterConfig{Op: kadm.SetConfig, Name: "retention.ms", Value: text("900000")}),
		becomes("retention.ms", "900000", kmsg.ConfigSourceDynamicTopicConfig),
		s.alter(ctx, name, kadm.AlterConfig{Op: kadm.AppendConfig, Name: "cleanup.policy", Value: text("delete")}),
		becomes("cleanup.policy", "delete", kmsg.ConfigSourceDynamicTopicConfig),
		s.alter(ctx, name, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: "retention.ms"}),
		becomes("retention.ms", "604800000", kmsg.ConfigSourceDefaultConfig),
		fails(kerr.InvalidConfig, s.alter(ctx, name, kadm.AlterConfig{Name: "no.such.config", Value: text("1")}), "unknown key"),
	)
}

func (s *suite) deleteRecords(ctx context.Context, topic string, before int64) (int64, error) {
	offsets := kadm.Offsets{}
	offsets.Add(kadm.Offset{Topic: topic, Partition: 0, At: before})
	responses, err := s.admin.DeleteRecords(ctx, offsets)
	if err != nil {
		return -1, err
	}
	response := responses[topic][0]
	return response.LowWatermark, response.Err
}

func (s *suite) deletedRecords(ctx context.Context) error {
	name, err := s.topic(ctx, "delete-records", 1, nil)
	if err != nil {
		return err
	}
	if err := s.send(ctx, makeRecords(name, 1, 100, 200)); err != nil {
		return err
	}
	low, err := s.deleteRecords(ctx, name, 30)
	if err = errors.Join(err, equal(int64(30), low, "low watermark")); err != nil {
		return err
	}
	records, err := s.read(ctx, name, 1, 70)
	if err != nil {
		return err
	}
	_, beyond := s.deleteRecords(ctx, name, 101)
	low, err = s.deleteRecords(ctx, name, -1)
	return errors.Join(
		err,
		equal(int64(30), records[0].Offset, "first record left"),
		fails(errOutOfRange, beyond, "deleting beyond the end"),
		equal(int64(100), low, "low watermark after deleting all"),
	)
}

func (s *suite) listOffsets(ctx context.Context) error {
	name, err := s.topic(ctx, "list-offsets", 2, nil)
	if err != nil {
		return err
	}
	if err := s.send(ctx, timedRecords(name)); err != nil {
		return err
	}
	is := func(what string, want int64, partition int32, listed kadm.ListedOffsets, err error) error {
		offset := listed[name][partition]
		return errors.Join(err, offset.Err, equal(want, offset.Offset, what))
	}
	start, startErr := s.admin.ListStartOffsets(ctx, name)
	end, endErr := s.admin.ListEndOffsets(ctx, name)
	stable, stableErr := s.admin.ListCommittedOffsets(ctx, name)
	largest, largestErr := s.admin.ListMaxTimestampOffsets(ctx, name)
	after, afterErr := s.admin.ListOffsetsAfterMilli(ctx, timesBase+1, name)
	return errors.Join(
		is("earliest", 0, 0, start, startErr),
		is("latest", 5, 0, end, endErr),
		is("last stable", 5, 0, stable, stableErr),
		is("largest timestamp", 3, 0, largest, largestErr),
		is("by timestamp", 1, 0, after, afterErr),
		is("latest of an empty partition", 0, 1, end, endErr),
	)
}

func (s *suite) deletedTopicIsGone(ctx context.Context) error {
	name, err := s.topic(ctx, "delete", 2, nil)
	if err != nil {
		return err
	}
	if _, err := s.admin.DeleteTopic(ctx, name); err != nil {
		return err
	}
	if err := eventually("not listed", func() (bool, error) {
		topics, err := s.admin.ListTopics(ctx)
		return !topics.Has(name), err
	}); err != nil {
		return err
	}
	_, err = s.admin.DeleteTopic(ctx, name)
	return fails(errUnknownTopic, err, "deleting it again")
}
