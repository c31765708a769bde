package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"time"
)

const (
	checkTimeout = 30 * time.Second
	waitTimeout  = 15 * time.Second
)

// checks runs named checks one after another, prints a line for each and counts them. A check that hangs fails.
type checks struct {
	only           *regexp.Regexp
	passed, failed int
}

func (c *checks) check(name string, body func(context.Context) error) {
	if !c.only.MatchString(name) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	outcome := make(chan error, 1)
	go func() { outcome <- body(ctx) }()
	var err error
	select {
	case err = <-outcome:
	case <-time.After(checkTimeout + time.Second):
		err = fmt.Errorf("not done after %v", checkTimeout)
	}
	if err != nil {
		c.failed++
		fmt.Printf("FAIL %s %s\n", name, strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	c.passed++
	fmt.Printf("ok %s\n", name)
}

// finish prints the totals and ends the process.
func (c *checks) finish() {
	fmt.Printf("%d passed, %d failed\n", c.passed, c.failed)
	if c.failed > 0 || c.passed == 0 {
		os.Exit(1)
	}
}

func equal(want, got any, what string) error {
	if !reflect.DeepEqual(want, got) {
		return fmt.Errorf("%s: expected %.200v, got %.200v", what, want, got)
	}
	return nil
}

func that(condition bool, what string, details ...any) error {
	if !condition {
		return fmt.Errorf(what, details...)
	}
	return nil
}

// fails says what is wrong unless the call ended with this error.
func fails(want, got error, what string) error {
	if !errors.Is(got, want) {
		return fmt.Errorf("%s: expected the error %v, got %v", what, want, got)
	}
	return nil
}

// eventually asks again until the answer is true. For state that a broker may publish a moment after it acknowledged.
func eventually(what string, condition func() (bool, error)) error {
	deadline := time.Now().Add(waitTimeout)
	for {
		done, err := condition()
		if err != nil || done {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("never happened: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
