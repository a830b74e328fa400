// A handler in Go: decodes the reading of a device, "dev-1,42.5,1678886400".
//
//	go build reading.go
//	faas-worker --handler ./reading
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"log"
	"os"
	"regexp"
	"strconv"
	"sync"
)

// Numbers as JSON writes them, of up to 15 digits: no double loses one of these.
var pattern = regexp.MustCompile(`^([^,]+),(-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?),(0|[1-9][0-9]{0,14})$`)

type reading struct {
	Device    string  `json:"device"`
	Value     float64 `json:"value"`
	Timestamp int64   `json:"timestamp"`
}

// The function: returns a value for encoding/json, or an error. It is called by many goroutines at once.
func handle(payload string) (any, error) {
	fields := pattern.FindStringSubmatch(payload)
	if fields == nil {
		return nil, &failure{422, "expected device,value,timestamp"}
	}
	value, _ := strconv.ParseFloat(fields[2], 64)
	timestamp, _ := strconv.ParseInt(fields[3], 10, 64)
	return reading{fields[1], value, timestamp}, nil
}

// ---- The loop, which needs no change ----

// How many requests a process works on at once.
const concurrency = 16

type request struct {
	ID      int64  `json:"id"`
	Payload string `json:"payload"`
}

type failure struct {
	Status  int    `json:"status"`
	Message string `json:"message"`
}

func (f *failure) Error() string { return f.Message }

type reply struct {
	ID     int64           `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *failure        `json:"error,omitempty"`
}

// A panic of the function ends the process: its requests are answered with 502, and it is replaced.
func answer(request request) reply {
	result, err := handle(request.Payload)
	var text []byte
	if err == nil {
		text, err = json.Marshal(result)
	}
	var refused *failure
	if err != nil && !errors.As(err, &refused) {
		log.Print(err)
		refused = &failure{500, err.Error()}
	}
	return reply{request.ID, text, refused}
}

func main() {
	// Output of the function goes to the log, and never between the replies.
	replies := os.Stdout
	os.Stdout = os.Stderr
	var turn sync.Mutex
	write := func(message any) {
		line, err := json.Marshal(message)
		if err != nil {
			log.Fatal(err)
		}
		turn.Lock()
		defer turn.Unlock()
		// One write for a line: os.File has no buffer to flush.
		replies.Write(append(line, '\n'))
	}
	write(map[string]any{"ready": true, "concurrency": concurrency})
	// Not a Scanner, which ends at a line of 64 KiB.
	requests := bufio.NewReader(os.Stdin)
	var running sync.WaitGroup
	for {
		line, err := requests.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		var request request
		if err != nil || json.Unmarshal(line, &request) != nil {
			log.Fatalf("cannot read a request: %v", err)
		}
		running.Add(1)
		go func() {
			defer running.Done()
			write(answer(request))
		}()
	}
	running.Wait()
}
