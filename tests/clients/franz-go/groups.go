package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func (s *suite) groupChecks(c *checks) {
	for _, balancer := range []struct {
		name string
		kind kgo.GroupBalancer
	}{{"range", kgo.RangeBalancer()}, {"cooperative", kgo.CooperativeStickyBalancer()}} {
		c.check("group_"+balancer.name+"_goes_on_where_it_committed", func(ctx context.Context) error {
			return s.groupGoesOn(ctx, balancer.name, balancer.kind)
		})
		c.check("group_"+balancer.name+"_shares_with_a_second_member", func(ctx context.Context) error {
			return s.groupShares(ctx, balancer.name, balancer.kind)
		})
	}
	c.check("group_is_administered", s.groupAdmin)
}

// member is a consumer of a group, and the partitions that it has.
type member struct {
	*kgo.Client
	mutex sync.Mutex
	has   map[int32]bool
}

func (m *member) count() int {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return len(m.has)
}

func (s *suite) member(group, topic string, balancer kgo.GroupBalancer) (*member, error) {
	m := &member{has: map[int32]bool{}}
	note := func(has bool) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, changed map[string][]int32) {
			m.mutex.Lock()
			defer m.mutex.Unlock()
			for _, partition := range changed[topic] {
				if has {
					m.has[partition] = true
				} else {
					delete(m.has, partition)
				}
			}
		}
	}
	client, err := s.client(kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.Balancers(balancer),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(300*time.Millisecond),
		kgo.OnPartitionsAssigned(note(true)), kgo.OnPartitionsRevoked(note(false)), kgo.OnPartitionsLost(note(false)))
	m.Client = client
	return m, err
}

// pollUntil has all poll until it is so.
func pollUntil(ctx context.Context, what string, members []*member, condition func() bool) error {
	return eventually(what, func() (bool, error) {
		for _, m := range members {
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			err := m.PollFetches(short).Err0()
			cancel()
			if err != nil && !errors.Is(err, context.DeadlineExceeded) {
				return false, err
			}
		}
		return condition(), nil
	})
}

func (s *suite) groupGoesOn(ctx context.Context, what string, balancer kgo.GroupBalancer) error {
	name, err := s.topic(ctx, "group-goes-on-"+what, 3, nil)
	if err != nil {
		return err
	}
	if err := s.send(ctx, makeRecords(name, 3, 300, 100)); err != nil {
		return err
	}
	first, err := s.member(name, name, balancer)
	if err != nil {
		return err
	}
	if _, err := take(ctx, first.Client, 300); err != nil {
		return err
	}
	if err := first.CommitUncommittedOffsets(ctx); err != nil {
		return err
	}
	first.Close()
	if err := s.send(ctx, makeRecords(name, 3, 30, 100)); err != nil {
		return err
	}
	second, err := s.member(name, name, balancer)
	if err != nil {
		return err
	}
	defer second.Close()
	records, err := take(ctx, second.Client, 30)
	for _, record := range records {
		err = errors.Join(err, that(record.Offset >= 100, "offset %d is read again", record.Offset))
	}
	return err
}

func (s *suite) groupShares(ctx context.Context, what string, balancer kgo.GroupBalancer) error {
	name, err := s.topic(ctx, "group-shares-"+what, 4, nil)
	if err != nil {
		return err
	}
	first, err := s.member(name, name, balancer)
	if err != nil {
		return err
	}
	defer first.Close()
	one := []*member{first}
	if err := pollUntil(ctx, "all are with the first", one, func() bool { return first.count() == 4 }); err != nil {
		return err
	}
	second, err := s.member(name, name, balancer)
	if err != nil {
		return err
	}
	both := []*member{first, second}
	shared := func() bool { return first.count() == 2 && second.count() == 2 }
	err = pollUntil(ctx, "both have two", both, shared)
	second.Close()
	if err != nil {
		return fmt.Errorf("%w: %d and %d", err, first.count(), second.count())
	}
	return pollUntil(ctx, "all are with the first again", one, func() bool { return first.count() == 4 })
}

func (s *suite) groupAdmin(ctx context.Context) error {
	name, err := s.topic(ctx, "group-admin", 2, nil)
	if err != nil {
		return err
	}
	m, err := s.member(name, name, kgo.RangeBalancer())
	if err != nil {
		return err
	}
	defer m.Close()
	if err := pollUntil(ctx, "it has its part", []*member{m}, func() bool { return m.count() == 2 }); err != nil {
		return err
	}
	described, err := s.admin.DescribeGroups(ctx, name)
	if err != nil {
		return err
	}
	listed, err := s.admin.ListGroups(ctx)
	if err != nil {
		return err
	}
	deleted, err := s.admin.DeleteGroups(ctx, name)
	if err != nil {
		return err
	}
	if err := errors.Join(
		equal("Stable", described[name].State, "state"),
		equal(1, len(described[name].Members), "members"),
		equal(name, listed[name].Group, "listed group"),
		fails(kerr.NonEmptyGroup, deleted[name].Err, "deletion of a group with members"),
	); err != nil {
		return err
	}
	m.Close()
	if err := eventually("it is empty", func() (bool, error) {
		described, err := s.admin.DescribeGroups(ctx, name)
		return described[name].State == "Empty", err
	}); err != nil {
		return err
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset(name, 0, 7, -1)
	if err := s.admin.CommitAllOffsets(ctx, name, offsets); err != nil {
		return err
	}
	found, err := s.admin.FetchOffsets(ctx, name)
	if err != nil {
		return err
	}
	at, _ := found.Lookup(name, 0)
	deleted, err = s.admin.DeleteGroups(ctx, name)
	return errors.Join(err, equal(int64(7), at.At, "committed offset"), deleted[name].Err)
}
