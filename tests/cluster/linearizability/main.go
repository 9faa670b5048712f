// Says whether a history of calls on one log fits some order of them in which each took effect at
// one moment between its call and its return. Reads a call a line, as JSON, from standard input.
//
// Exit code 0: it does; 1: it does not; 2: not known within the time, or no history.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

// How long the search may take: a history that fits is found in seconds.
const limit = 5 * time.Minute

// One call.
type call struct {
	Client int    `json:"client"`
	Kind   string `json:"kind"`
	// What was appended or read.
	Value uint64 `json:"value"`
	// Where; for "end", the offset after the last value.
	Offset uint64 `json:"offset"`
	// Whether it may have happened at any time after its call, or never.
	Unknown bool `json:"unknown"`
	// Nanoseconds.
	Called   int64 `json:"called"`
	Returned int64 `json:"returned"`
}

// A log, as its last value and the log before it. Never changed, so that states share their past.
type log struct {
	before *log
	value  uint64
	length uint64
	hash   uint64
}

func (l *log) size() uint64 {
	if l == nil {
		return 0
	}
	return l.length
}

func (l *log) digest() uint64 {
	if l == nil {
		return 14695981039346656037
	}
	return l.hash
}

func (l *log) with(value uint64) *log {
	hash := (l.digest() ^ value) * 1099511628211
	return &log{before: l, value: value, length: l.size() + 1, hash: hash}
}

func (l *log) at(offset uint64) (uint64, bool) {
	if offset >= l.size() {
		return 0, false
	}
	for l.length != offset+1 {
		l = l.before
	}
	return l.value, true
}

func step(state, input, _ any) (bool, any) {
	now, did := state.(*log), input.(call)
	switch did.Kind {
	case "append":
		return did.Unknown || now.size() == did.Offset, now.with(did.Value)
	case "read":
		value, found := now.at(did.Offset)
		return found && value == did.Value, now
	case "end":
		return now.size() == did.Offset, now
	default:
		return false, now
	}
}

func equal(one, other any) bool {
	a, b := one.(*log), other.(*log)
	for a != b {
		if a.size() != b.size() || a.digest() != b.digest() || a.value != b.value {
			return false
		}
		a, b = a.before, b.before
	}
	return true
}

func history() ([]porcupine.Operation, error) {
	var operations []porcupine.Operation
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var did call
		if err := json.Unmarshal(lines.Bytes(), &did); err != nil {
			return nil, err
		}
		if did.Unknown {
			// Last of all, it is as good as never: nobody looks any more.
			did.Returned = math.MaxInt64
		}
		operations = append(operations, porcupine.Operation{
			ClientId: did.Client,
			Input:    did,
			Call:     did.Called,
			Return:   did.Returned,
		})
	}
	return operations, lines.Err()
}

func main() {
	operations, err := history()
	if err != nil || len(operations) == 0 {
		fmt.Fprintln(os.Stderr, "no history:", err)
		os.Exit(2)
	}
	model := porcupine.Model{
		Init:  func() any { return (*log)(nil) },
		Step:  step,
		Equal: equal,
		Hash:  func(state any) uint64 { return state.(*log).digest() },
	}
	verdict := porcupine.CheckOperationsTimeout(model, operations, limit)
	fmt.Printf("linearizability: %d operations, %s\n", len(operations), verdict)
	switch verdict {
	case porcupine.Ok:
	case porcupine.Illegal:
		os.Exit(1)
	default:
		os.Exit(2)
	}
}
